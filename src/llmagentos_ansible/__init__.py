# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Runs one playbook for one host with ansible-core: the program `python -m llmagentos_ansible JOBDIR`.

ansible-core is licensed under the GPL, and so is this package, which imports it. LLMAgentOS itself
never imports either: the node agent starts this program and reads the files that it writes.
"""
