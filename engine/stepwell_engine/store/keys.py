"""Every key Stepwell writes: its name, type, and who ends its life. The only place that spells a key.

A key is `{<namespace>:<shard>}:<suffix>`; the braces are the Cluster hash tag, so all keys of a shard share one slot. Lua gets its
key builders from this table too (`lua_builder`), so a name cannot differ between the two languages.
"""

import re
from dataclasses import dataclass

_PARAM = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One kind of key.

    `pattern` is the suffix with `{param}` places; `type` the server's type; `life` says what removes it: ``ttl`` (always has
    one) or the owner that deletes it, ``namespace`` for the few keys that live as long as the namespace.
    """

    name: str
    pattern: str
    type: str
    life: str
    holds: str

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the places in the pattern, in order."""
        return tuple(_PARAM.findall(self.pattern))


SPECS: tuple[KeySpec, ...] = (
    # streams and their deduplication
    KeySpec(
        "events", "ev", "stream", "namespace", "accepted events; entries are deleted when handled"
    ),
    KeySpec("outbox", "ob", "stream", "namespace", "what this shard owes other shards"),
    KeySpec("undelivered", "ud", "hash", "item", "what of it can't be delivered as things are"),
    KeySpec("send", "send:{seed}", "string", "ttl", "the reply of one send call, for its retries"),
    KeySpec("event_id", "id:{hash}", "string", "ttl", "a user's event id seen in the last 24 h"),
    KeySpec("record", "e:{event}", "string", "ttl", "an event's fan-out plan and outcomes"),
    KeySpec(
        "outcome",
        "oc:{event}",
        "hash",
        "ttl",
        "what an event came to here, by function; `!…`: runs it cancelled",
    ),
    KeySpec("recent", "rec:{name}", "zset", "ttl", "recent events of a name used with lookback"),
    # runs
    KeySpec("run", "r:{run}", "hash", "run", "a run: status, event, steps, pendings, leases"),
    KeySpec("fn_runs", "i:{fn}", "zset", "run", "the runs of a function by creation, ms"),
    KeySpec("ended", "ended", "zset", "run", "ended runs by end, ms: the retention index"),
    KeySpec("watchers", "wt:{run}", "set", "ttl", "reply lists to tell of the end of a run"),
    KeySpec("reply", "rp:{watcher}", "list", "ttl", "where one watcher hears of the end of a run"),
    # flow control, before a run begins
    KeySpec("rate", "rl:{id}", "zset", "ttl", "the last runs of a rate limit by start, ms"),
    KeySpec("idempotency", "idem:{id}", "string", "ttl", "the run of an idempotency key, 24 h"),
    KeySpec("singleton", "sg:{id}", "string", "run", "the run that has a singleton's key, or had"),
    KeySpec("window", "win:{id}", "hash", "item", "an open debounce or batch; its end is in `due`"),
    KeySpec("gathered", "wev:{id}", "list", "item", "the events of an open batch or collection"),
    # queues
    KeySpec("resumes", "q:{fn}:{key}:r", "zset", "item", "items of runs that began, by run time"),
    KeySpec("starts", "q:{fn}:{key}:s", "zset", "item", "items of runs that have not, by run time"),
    KeySpec("ready_keys", "rk:{fn}", "zset", "item", "queue keys with items, by virtual time"),
    KeySpec("ready_fns", "rf:{lane}", "zset", "item", "functions with items, by virtual time"),
    KeySpec("suspects", "sus:{lane}", "zset", "item", "items whose process died, by run time"),
    KeySpec("bell", "bell:{lane}", "list", "namespace", "at most one ring for an idle worker"),
    KeySpec(
        "due", "due", "zset", "run", "sleeps, timeouts, retries, future starts by due time, ms"
    ),
    KeySpec("cron", "cron:{fn}", "hash", "namespace", "handled ticks of a function's crons"),
    KeySpec(
        "wake", "wake", "string", "namespace", "when the coordinators mean to look at `due` again"
    ),
    # what gates hold
    KeySpec("slots", "cs:{gate}", "zset", "item", "who holds a slot, by the ms of taking it"),
    KeySpec("parked", "pk:{gate}", "zset", "item", "queue keys that wait for a gate, by turn"),
    KeySpec("parks", "pd:{fn}", "hash", "item", "parked queue keys: w or s, and the gate"),
    KeySpec("arrival", "th:{gate}", "string", "ttl", "a throttle's theoretical arrival time, us"),
    KeySpec("limit", "gl:{gate}", "string", "ttl", "the limit that the newest event gave a gate"),
    KeySpec("flow", "fl:{fn}", "hash", "namespace", "what a function's gates allow now"),
    KeySpec("permits", "gp:{gate}", "zset", "item", "slots held here at a gate's home, by stamp"),
    KeySpec("kept", "gr:{gate}", "zset", "item", "queue keys a permit is kept for, by ms"),
    KeySpec("permit_serial", "gs", "string", "namespace", "numbers permits"),
    KeySpec("asks", "ga:{gate}", "hash", "item", "permits asked for: stamp, and the limit"),
    # leases and processes
    KeySpec("leases", "lease", "zset", "item", "leased items by lease expiry, ms"),
    KeySpec("workers", "w", "zset", "process", "live processes by the end of their word, ms"),
    KeySpec("control", "ctl:{worker}", "list", "ttl", "messages to one worker: results, cancels"),
    # waits and signals
    KeySpec("waits", "wi:{name}", "zset", "run", "waits for an event name by path and value"),
    KeySpec("wait_paths", "wp:{name}", "hash", "run", "how many waits of a name use each path"),
    KeySpec(
        "signal", "sig:{hash}", "hash", "ttl", "who waits for a signal, or what is held for it"
    ),
    # the namespace, on shard 0
    KeySpec("meta", "meta", "hash", "namespace", "shard count and schema version"),
    KeySpec("functions", "fn", "hash", "namespace", "registered functions"),
    KeySpec("functions_version", "fv", "string", "namespace", "grows with every registration"),
)

BY_NAME = {spec.name: spec for spec in SPECS}


def lua_builder(name: str) -> str:
    """The Lua function that builds this key from the shard's root; sources call it `k_<name>`, and it stands in the table `K`.

    >>> lua_builder("run")
    "function K.run(run) return ROOT .. ':r:' .. run end"
    """
    spec = BY_NAME[name]
    parts = ["ROOT", "':" + spec.pattern + "'"]
    text = parts[0] + " .. " + _PARAM.sub(lambda m: f"' .. {m.group(1)} .. '", parts[1])
    text = text.replace(" .. ''", "")
    return f"function K.{name}({', '.join(spec.params)}) return {text} end"


class Keys:
    """The keys of one shard.

    >>> Keys("stepwell", 0).run("01J0000000000000000000000")
    '{stepwell:0}:r:01J0000000000000000000000'
    """

    __slots__ = ("_prefix", "root")

    def __init__(self, namespace: str, shard: int) -> None:
        self.root = f"{{{namespace}:{shard}}}"
        self._prefix = self.root + ":"

    def build(self, name: str, *params: str) -> str:
        """The key of the kind `name`; `params` in the order of its pattern."""
        values = iter(params)
        return self._prefix + _PARAM.sub(lambda _: next(values), BY_NAME[name].pattern)

    def run(self, run: str) -> str:
        """The hash of one run."""
        return f"{self._prefix}r:{run}"

    @property
    def events(self) -> str:
        """The stream of accepted events."""
        return self._prefix + "ev"

    @property
    def outbox(self) -> str:
        """The stream of messages to other shards."""
        return self._prefix + "ob"


def spec_of(key: str) -> KeySpec | None:
    """The kind a live key belongs to, or None: what `doctor` and the key-leak test ask of every key."""
    _, _, suffix = key.partition("}:")
    for spec in SPECS:
        if not spec.params and suffix == spec.pattern:
            return spec
    for spec in SPECS:
        if spec.params and _matches(spec, suffix):
            return spec
    return None


def _matches(spec: KeySpec, suffix: str) -> bool:
    head, _, _ = spec.pattern.partition("{")
    tail = spec.pattern.rpartition("}")[2]
    return suffix.startswith(head) and suffix.endswith(tail)
