import functools
from dataclasses import dataclass
from typing import Any

import pytest

from stepwell import Checkpointing, Retries, TriggerEvent
from stepwell.definition import create_function
from stepwell.errors import ConfigError, ExpressionError
from stepwell.function import FunctionReference, reference_function
from stepwell.middleware import MiddlewareSync
from stepwell.runtime import UNSET
from stepwell.serde import pack, unpack


class Client:
    app_id = "shop"
    app_version = "v7"
    serializer = None

    def __init__(self):
        self.functions: dict[str, Any] = {}
        self.middleware: list[Any] = []
        self.checkpointing = None

    def create_function(self, **options):
        return create_function(self, self.functions, **options)


async def handler(ctx):
    return 1


def sync_handler(ctx):
    return 1


def make(**options):
    return Client().create_function(**{"fn_id": "fulfil", **options})


def test_a_function_has_its_ids_and_defaults():
    client = Client()
    function = client.create_function(fn_id="fulfil", trigger=TriggerEvent("a"))(handler)
    assert (function.id, function.get_id()) == ("shop-fulfil", "shop-fulfil")
    assert (function.local_id, function.fn_id, function.app_id) == ("fulfil", "fulfil", "shop")
    assert function.name == "fulfil"
    assert function.retries.attempts == 5
    assert function.max_crashes == 3
    assert function.step_timeout_ms == 7_200_000
    assert function.is_handler_async
    assert function.on_failure_fn_id is None
    assert function.is_on_failure_handler_async is None
    assert function.codec is None
    assert function.output_type is function.result_type is UNSET
    assert client.functions == {"fulfil": function}
    assert repr(function) == "<Function 'shop-fulfil'>"
    assert function.client_middleware() is None


def test_triggers_are_one_a_list_or_none():
    a, b = TriggerEvent("a"), TriggerEvent("b/*")
    assert make(trigger=a)(handler).triggers == (a,)
    assert make(trigger=[a, b])(handler).triggers == (a, b)
    assert make()(handler).triggers == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fn_id": ""}, "create_function(fn_id=): '' is not an id"),
        ({"fn_id": 5}, "create_function(fn_id=): 5 is not an id"),
        ({"fn_id": "x" * 256}, "256 characters, the most is 255"),
        ({"trigger": "a"}, "function 'fulfil': trigger=: 'a'; write TriggerEvent(event="),
        ({"trigger": [TriggerEvent("a"), 5]}, "function 'fulfil': trigger=: 5; write TriggerEvent"),
        ({"trigger": [TriggerEvent("a")] * 2}, "a trigger is there twice"),
        ({"trigger": [TriggerEvent(f"a{n}") for n in range(11)]}, "at most 10 of them"),
        ({"name": ""}, "function 'fulfil': name=: ''"),
        (
            {"retries": 21},
            "function 'fulfil': retries=: 21; write a number of retries from 0 to 20",
        ),
        ({"retries": True}, "function 'fulfil': retries=: True"),
        ({"max_crashes": 0}, "function 'fulfil': max_crashes=: 0; write an int from 1 to 100"),
        ({"step_timeout": "2y"}, "function 'fulfil': step_timeout=: '2y' is not a duration"),
        ({"step_timeout": 1}, "is too short; the least is 1s"),
        ({"distribute": 1}, "function 'fulfil': distribute=: 1; write True or False"),
        ({"checkpointing": 5}, "checkpointing=: 5; write Checkpointing(...)"),
        ({"middleware": [5]}, "middleware=: 5; write a list of Middleware classes"),
        ({"serializer": 5}, "serializer=: 5; write an object with serialize"),
        ({"lookback": ["a/*"]}, "lookback=: 'a/*'; write a list of exact event names"),
    ],
)
def test_wrong_options_name_function_and_argument(options, says):
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert says in str(caught.value)


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'concurency'"):
        make(concurency=5)


def test_an_expression_that_does_not_compile_is_found_at_definition():
    with pytest.raises(ExpressionError) as caught:
        make(trigger=TriggerEvent("a", "event.data.x =="))
    assert str(caught.value).startswith("function 'fulfil': trigger=: ")
    assert caught.value.expression == "event.data.x =="


class AsyncObject:
    async def __call__(self, ctx):
        return 1


def test_async_ness_is_seen_through_partials_and_objects():
    assert make()(functools.partial(handler)).is_handler_async
    assert make()(AsyncObject()).is_handler_async
    assert not make()(sync_handler).is_handler_async


def no_arguments():
    return 1


def generator(ctx):
    yield 1


async def async_generator(ctx):
    yield 1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (5, "the handler 5 is not callable"),
        (no_arguments, "must take one argument: `async def name(ctx): ...`"),
        (lambda a, b: 1, "must take one argument"),
        (generator, "is a generator; return a value"),
        (async_generator, "is a generator"),
    ],
)
def test_a_handler_takes_the_context(bad, says):
    with pytest.raises(ConfigError, match="function 'fulfil': the handler") as caught:
        make()(bad)
    assert says in str(caught.value)


def test_a_function_cant_be_decorated_again():
    with pytest.raises(ConfigError, match="is a function already"):
        make()(make()(handler))


def test_a_duplicate_id_is_an_error():
    client = Client()
    client.create_function(fn_id="fulfil")(handler)
    with pytest.raises(ConfigError, match="the app 'shop' has a function 'fulfil' already"):
        client.create_function(fn_id="fulfil")(handler)


def test_on_failure_is_a_function_of_its_own():
    client = Client()
    function = client.create_function(fn_id="fulfil", name="Fulfil", on_failure=handler)(handler)
    failure = client.functions["fulfil-failure"]
    assert function.on_failure is failure
    assert function.on_failure_fn_id == "shop-fulfil-failure"
    assert function.is_on_failure_handler_async
    assert failure.name == "Fulfil (failure)"
    assert failure.retries.attempts == 2
    assert failure.triggers == (
        TriggerEvent(
            "inngest/function.failed",
            "event.data.function_id == 'shop-fulfil' && event.data.fn_id == 'fulfil'",
        ),
    )
    with pytest.raises(ConfigError, match="'fulfil-failure' already"):
        client.create_function(fn_id="fulfil-failure")(handler)
    assert set(client.functions) == {"fulfil", "fulfil-failure"}


def test_a_clash_of_on_failure_enters_nothing():
    client = Client()
    client.create_function(fn_id="a-failure")(handler)
    with pytest.raises(ConfigError, match="'a-failure' already"):
        client.create_function(fn_id="a", on_failure=handler)(handler)
    assert set(client.functions) == {"a-failure"}


def test_a_quote_in_an_id_stays_in_its_string():
    client = Client()
    client.create_function(fn_id="it's \\ here", on_failure=handler)(handler)
    (trigger,) = client.functions["it's \\ here-failure"].triggers
    assert trigger.expression == (
        r"event.data.function_id == 'shop-it\'s \\ here' && event.data.fn_id == 'it\'s \\ here'"
    )


@pytest.mark.parametrize(
    ("main", "failure", "says"),
    [
        (handler, sync_handler, "an async function cannot have a non-async on_failure handler"),
        (sync_handler, handler, "a non-async function cannot have an async on_failure handler"),
    ],
)
def test_on_failure_is_of_the_same_kind(main, failure, says):
    with pytest.raises(ConfigError) as caught:
        make(on_failure=failure)(main)
    assert says in str(caught.value)
    assert "(function fulfil)" in str(caught.value)


@dataclass
class Receipt:
    id: int


async def typed(ctx) -> Receipt:
    return Receipt(1)


def test_the_result_type_is_given_or_annotated():
    assert make()(typed).result_type is Receipt
    assert make(output_type=list[Receipt])(typed).result_type == list[Receipt]
    codec = make()(typed).codec
    assert codec is not None
    assert codec.load(codec.dump(Receipt(1))) == Receipt(1)


def test_the_functions_checkpointing_goes_before_the_clients():
    client = Client()
    assert client.create_function(fn_id="a")(handler).checkpointing == Checkpointing()
    client.checkpointing = Checkpointing(5)
    own = Checkpointing(9)
    assert client.create_function(fn_id="b")(handler).checkpointing.buffered_steps == 5
    assert client.create_function(fn_id="c", checkpointing=own)(handler).checkpointing is own


def test_middleware_is_the_clients_then_the_functions():
    order = []

    def named(name):
        class Named(MiddlewareSync):
            def before_execution(self):
                order.append(name)

        return Named

    client = Client()
    client.middleware = [named("client")]
    stack = client.create_function(fn_id="a", middleware=[named("own")])(
        sync_handler
    ).client_middleware()
    assert stack is not None
    with pytest.raises(StopIteration):
        stack.before_execution().send(None)
    assert order == ["client", "own"]


def test_the_registry_gets_plain_values():
    function = make(trigger=TriggerEvent("a"), retries=Retries(2), on_failure=handler)(handler)
    config = function.config()
    assert unpack(pack(config)) == config
    assert config["triggers"] == [{"event": "a", "expression": None}]
    assert config["app_version"] == "v7"
    assert config["retries"]["attempts"] == 2
    assert config["on_failure"] == "fulfil-failure"
    assert config["max_crashes"] == 3


def test_a_reference_names_a_function():
    assert reference_function(app_id="a", function_id="b") == FunctionReference("a", "b")
    with pytest.raises(ConfigError, match=r"reference_function\(function_id=\): ''"):
        reference_function(app_id="a", function_id="")
