"""`stepwell functions`: what workers have registered."""

from typing import TYPE_CHECKING, Any

from stepwell.cli import options, output
from stepwell.cli.connect import look

if TYPE_CHECKING:
    from stepwell_engine.store.store import Store


def functions(
    redis_url: options.Url = None,
    namespace: options.Namespace = None,
    as_json: options.Json = False,
) -> None:
    """List the registered functions with their triggers and options."""
    found = look(_read, redis_url, namespace)
    if as_json:
        output.print_json({"functions": found})
        return
    rows = [
        (
            each["app_id"],
            each["fn_id"],
            ", ".join(_trigger(t) for t in each["triggers"]) or "invoke only",
            str(each["retries"].get("attempts", 1) - 1),
            str(each["shard"]),
            each["app_version"] or "",
        )
        for each in found
    ]
    columns = ("APP", "FUNCTION", "TRIGGERS", "RETRIES", "SHARD", "VERSION")
    output.print_rows(columns, rows, "No worker has registered a function yet.")


async def _read(store: "Store") -> list[dict[str, Any]]:
    from stepwell_engine.registry import Registry

    registry = Registry(store)
    await registry.refresh()
    found = [{**dict(f.config), "shard": f.shard, "number": f.number} for f in registry.all()]
    return sorted(found, key=lambda each: (each["app_id"], each["fn_id"]))


def _trigger(trigger: dict[str, Any]) -> str:
    if trigger.get("cron"):
        zone = trigger.get("timezone")
        return f"cron {trigger['cron']}" + (f" ({zone})" if zone else "")
    condition = trigger.get("expression")
    return f"{trigger['event']} if {condition}" if condition else str(trigger["event"])
