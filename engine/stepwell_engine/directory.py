"""The registered functions by name and number, for who needs no triggers: client and CLI."""

from typing import NamedTuple

from stepwell_engine import luapack
from stepwell_engine.store.store import Store


class Registered(NamedTuple):
    """A function's name and the number that stands for it in keys. `removed`: nothing starts it any more."""

    app_id: str
    fn_id: str
    number: str
    removed: bool = False


class Directory:
    """What the registry holds, read when something unknown is asked for.

    A function's number never changes and never goes (a removed one stays for its runs), so what is known need not be read again.
    That it was removed since is not known here; coordinators know, and refuse to start it.
    """

    __slots__ = ("_by_name", "_by_number", "_key", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = store.keys(0).build("functions")
        self._by_name: dict[tuple[str, str], Registered] = {}
        self._by_number: dict[str, Registered] = {}

    async def find(self, app_id: str, fn_id: str) -> Registered | None:
        """The function of that name, or None."""
        known = self._by_name.get((app_id, fn_id))
        if known is not None and not known.removed:
            return known
        field = f"{app_id}\0{fn_id}"
        raw: bytes | None = await self._store.server.call(self._key, "HGET", self._key, field)
        return None if raw is None else self._note(field, raw)

    async def numbered(self, number: str) -> Registered | None:
        """The function with that number, or None."""
        if number not in self._by_number:
            await self.all()
        return self._by_number.get(number)

    async def all(self) -> list[Registered]:
        """Every registered function."""
        flat: list[bytes] = await self._store.server.call(self._key, "HGETALL", self._key)
        fields = zip(flat[::2], flat[1::2], strict=True)
        return [self._note(field.decode(), raw) for field, raw in fields]

    async def slug(self, text: str) -> list[Registered]:
        """The functions called `app-fn` that can be started: more than one when ids contain hyphens."""
        found = await self.all()
        return [f for f in found if f"{f.app_id}-{f.fn_id}" == text and not f.removed]

    def _note(self, field: str, raw: bytes) -> Registered:
        app_id, _, fn_id = field.partition("\0")
        number, _started, _config, *removed = luapack.read(raw)
        found = Registered(app_id, fn_id, str(number), bool(removed))
        self._by_name[app_id, fn_id] = found
        self._by_number[found.number] = found
        return found
