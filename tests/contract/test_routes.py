"""Every route, found by registry: it says how it is written, what is reachable, and what is missing."""

import pytest

from toolchain import registry
from toolchain.contracts import Route
from toolchain.errors import CompressError

FORMATS = {"onnx", "tflite", "coreml"}


@pytest.mark.parametrize("name", registry.names("targets._routes"))
def test_every_route_keeps_the_contract(name: str) -> None:
    route: Route = registry.find("targets._routes", "ROUTE", name)
    assert route.name == name
    assert route.form.split(":")[0] == name
    assert route.summary
    for device in route.found():
        assert device.device.split(":")[0] == name
        assert device.summary
        assert not device.missing or device.hint
        if not device.missing:
            connection = route.open(device.device.partition(":")[2])
            assert {runtime.format for runtime in connection.runtimes} <= FORMATS


@pytest.mark.parametrize("name", registry.names("targets._routes"))
@pytest.mark.parametrize("rest", ["no such device", "\n", "//"])
def test_a_device_that_cannot_be_is_one_clear_line(name: str, rest: str) -> None:
    route: Route = registry.find("targets._routes", "ROUTE", name)
    with pytest.raises(CompressError) as caught:
        route.open(rest)
    assert caught.value.hint
    assert "\n" not in caught.value.message
