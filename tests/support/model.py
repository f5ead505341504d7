"""What a shard should do, in plain Python: the model that tests/lua/test_machine.py holds the scripts against."""

from dataclasses import dataclass, field

ENDED = "cfk"


@dataclass
class Item:
    """A queue item: the root ('') or a planned step. `place`: q queued · s among suspects · d due · l leased · p parked · ''."""

    place: str = ""
    due: int = 0
    token: str = ""
    released: str = ""
    worker: str = ""
    suspect: bool = False
    crashes: int = 0


@dataclass
class Run:
    """One run; `pend`: step → (kind, due)."""

    id: str
    parent: tuple[str, str] | None = None
    st: str = "q"
    dv: int = 0
    items: dict[str, Item] = field(default_factory=dict[str, Item])
    pend: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    done: set[str] = field(default_factory=set[str])
    grace: int = 0
    ended_at: int = 0

    def known(self, step: str) -> bool:
        return step in self.done or step in self.pend


class Model:
    """All runs, live workers, and what each transition does to them."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.alive: dict[str, int] = {}

    def create(self, run: str, now: int, start: int, parent: tuple[str, str] | None) -> None:
        later = start > now
        root = Item("d" if later else "q", start if later else 0)
        self.runs[run] = Run(run, parent, items={"": root})

    def places(self, place: str) -> set[tuple[str, str]]:
        return {
            (run.id, step)
            for run in self.runs.values()
            for step, item in run.items.items()
            if item.place == place
        }

    def lease(self, run: str, step: str, token: str, worker: str, due: int, suspect: bool) -> None:
        owner = self.runs[run]
        item = owner.items[step]
        assert item.place == ("s" if suspect else "q")
        item.place, item.token, item.worker, item.due, item.suspect = (
            "l",
            token,
            worker,
            due,
            suspect,
        )
        if not step and owner.st == "q":
            owner.st = "r"

    def refused(self, run: str, step: str, token: str, clause: str, to: str) -> str:
        """The code of a commit that is not applied, or ''."""
        owner = self.runs.get(run)
        if owner is None:
            return "GONE"
        item = owner.items[step]
        if item.token != token:
            return "OK" if item.released == token else "FENCED"
        if owner.st == "x" and (clause, to) != ("F", "k"):
            return "CANCEL"
        return ""

    def op(self, run: Run, entry: str, kind: str, step: str, due: int) -> None:
        if kind == "d":
            run.done.add(step)
            run.pend.pop(step, None)
            if run.items[entry].suspect:
                run.items[entry].suspect, run.items[entry].crashes = False, 0
        elif kind == "x":
            run.pend.pop(step, None)
            if step in run.items:
                run.items[step].place = run.items[step].token = ""
        elif not run.known(step):
            run.pend[step] = (kind, due)
            if kind == "P":
                old = run.items.get(step, Item())
                run.items[step] = Item("q", released=old.released, crashes=old.crashes)

    def clause(self, run: Run, step: str, clause: str, to: str, due: int, fresh: bool) -> str:
        item = run.items[step]
        if clause == "N":
            return "OK"
        if clause == "S" and not fresh:
            return "AGAIN"
        if clause == "S" and not run.pend:
            return "STUCK"
        item.released, item.token = item.token, ""
        if clause == "F":
            token = item.released
            self.end(run, to, due)
            item.released = token
        elif clause == "S":
            item.place = "p"
        elif clause == "R":
            item.place, item.due, item.crashes = "d", due, 0
        elif clause == "Y":
            item.place = "q"
        else:
            item.place = ""
            run.dv += 1
            self.wake(run)
        return "OK"

    def wake(self, run: Run) -> None:
        if run.items[""].place == "p":
            run.items[""].place = "q"

    def complete(self, run: Run, step: str) -> None:
        kind, _ = run.pend.pop(step)
        if kind != "r":
            run.done.add(step)
        run.dv += 1
        self.wake(run)

    def end(self, run: Run, to: str, now: int) -> None:
        run.st, run.ended_at, run.dv = to, now, 0
        run.pend.clear()
        for item in run.items.values():
            item.place = item.token = ""
        parent = self.runs.get(run.parent[0]) if run.parent else None
        if run.parent and parent and parent.st not in ENDED and run.parent[1] in parent.pend:
            self.complete(parent, run.parent[1])

    def kill(self, run: Run, to: str, now: int) -> None:
        """Ended by something else than its own code."""
        self.end(run, to, now)
        run.items[""].released = ""

    def cancel(self, run: Run, now: int, grace: int) -> None:
        if run.st in ENDED or run.st == "x":
            return
        if any(item.token for item in run.items.values()):
            run.st, run.grace = "x", grace
        else:
            self.kill(run, "k", now)

    def timers(self) -> set[str]:
        """The members of `due`."""
        found = set[str]()
        for run in self.runs.values():
            if run.st == "x":
                found.add(f"{run.id}:!")
            found |= {f"{run.id}:{s}" for s, (_, due) in run.pend.items() if due}
            for step, item in run.items.items():
                if item.place == "d":
                    found.add(f"{run.id}:{step}" if step else run.id)
        return found

    def fire(self, member: str, now: int) -> None:
        """One member of `due` whose time has come."""
        run, step = self.runs[member[:26]], member[27:]
        if step == "!":
            if run.st == "x":
                self.kill(run, "k", now)
        elif step in run.items:
            if run.items[step].place == "d":
                run.items[step].place = "q"
        elif run.st not in ENDED and step in run.pend:
            self.complete(run, step)

    def expired(self, now: int) -> set[tuple[str, str]]:
        return {(r, s) for r, s in self.places("l") if self.runs[r].items[s].due <= now}

    def reclaim(self, run: Run, step: str, now: int, most: int) -> str:
        item = run.items[step]
        if not item.token or item.due > now:
            return "kept"
        alive = self.alive.get(item.worker, 0) > now
        if run.st == "x":
            self.kill(run, "k", now)
            return "cancelled"
        if item.suspect and not alive:
            item.crashes += 1
            if item.crashes >= most:
                self.kill(run, "f", now)
                return "failed"
        item.token, item.suspect = "", False
        item.place = "q" if alive else "s"
        return "queued" if alive else "suspect"
