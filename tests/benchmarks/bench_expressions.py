"""What an expression costs: `python tests/benchmarks/bench_expressions.py` prints µs a call."""

import time
from collections.abc import Callable

from stepwell_engine.expressions import compile as cel
from stepwell_engine.expressions import index_key, lookup
from stepwell_engine.expressions.program import Program

EVENT = {
    "name": "shop/order.created",
    "data": {
        "id": 150,
        "user": "u_1",
        "org": 7,
        "plan": "pro",
        "items": [{"q": n} for n in range(5)],
    },
    "ts": 1_700_000_000_000,
}
CANDIDATE = {"name": "shop/order.paid", "data": {"id": 150.0, "user": "u_1"}}
EXPRESSIONS = (
    "event.data.user == async.data.user",
    "event.data.id == async.data.id && event.data.plan == 'pro'",
    "event.data.id > 99.5 && event.data.plan in ['pro', 'team']",
    "event.data.user + '-' + event.data.org",
    "event.data.items.exists(i, i.q > 3)",
    "date(event.ts) < now()",
    "timestamp(event.data.at) == null",
)


def micros(call: Callable[[], object], count: int) -> float:
    """The best of five rounds, in µs a call."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, time.perf_counter() - start)
    return best / count * 1e6


def evaluations(program: Program) -> tuple[float, float]:
    """µs of a match, and of the evaluator of record."""
    fast = micros(
        lambda: program.matches(EVENT, CANDIDATE, now_ms=1), 20_000 if program.fast else 50
    )
    record = micros(lambda: program.evaluate_reference(EVENT, CANDIDATE, now_ms=1), 50)
    return fast, record


def main() -> None:
    """Print the table."""
    cel("true")
    start = time.perf_counter()
    for number in range(100):
        cel(f"event.data.id == async.data.id && event.data.n > {number}")
    print(f"compile {(time.perf_counter() - start) / 100 * 1e6:29.0f} µs")
    print(f"index_key(str) {micros(lambda: index_key('u_1'), 20_000):22.2f} µs")
    print(f"lookup {micros(lambda: lookup('data.user', EVENT), 20_000):30.2f} µs")
    print(f"{'match':>37} {'record':>9} µs")
    for text in EXPRESSIONS:
        fast, record = evaluations(cel(text))
        print(f"{fast:37.2f} {record:9.1f}  {text}")


if __name__ == "__main__":
    main()
