"""How long redaction takes: microseconds a KB of English, Chinese and code, with little and with much to find.

`python benchmarks/bench_redaction.py`: one line a text. One process, no model, no network.
"""

from __future__ import annotations

import time

from llmagentos.security.redaction import Vault

_ENGLISH = (
    "The quarterly report of the northern branch was sent on 12 March 2026 and names 1,204 orders, of which 37 were "
    "late. Nobody could say why order 8839201 took 19 days; version 2.4.1 of the planner ran on 10.0.0.7 then. "
)
_CHINESE = (
    "北方分公司的季度报告于2026年3月12日发出，共有1204个订单，其中37个延迟。没有人知道订单8839201为什么用了19天。"
)
_CODE = """
def total(orders: list[Order]) -> float:
    return sum(order.price * 1.19 for order in orders if order.id != "A-17")
"""
_PERSONAL = (
    "Write to ada.lovelace@example.com or +86 138-1234-5678; card 4111 1111 1111 1111, 身份证11010519491231002X, "
    "key sk-proj-abcdefghijklmnop1234567890. "
)
_SIZE = 64 * 1024


def main() -> None:
    """Print the table."""
    texts = {
        "English": _ENGLISH,
        "Chinese": _CHINESE,
        "code": _CODE,
        "one finding a KB": _ENGLISH * 5 + "ada@example.com ",
        "nothing but findings": _PERSONAL,
    }
    for name, piece in texts.items():
        text = (piece * (_SIZE // len(piece) + 1))[:_SIZE]
        kilobytes = len(text.encode()) / 1024
        best = min(_seconds(text) for _ in range(5))
        print(f"redaction: {best * 1e6 / kilobytes:7.1f} us/KB  {name}")


def _seconds(text: str) -> float:
    vault = Vault()
    begun = time.perf_counter()
    vault.redact(text)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
