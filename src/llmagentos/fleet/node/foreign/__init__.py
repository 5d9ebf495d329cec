"""Content of other tools, Puppet manifests and Salt states, run by these tools on the node and told as a job."""
