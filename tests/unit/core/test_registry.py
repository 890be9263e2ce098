"""Names and entries of a choice: timix-pl's own, a plugin's, and none."""

import pytest

from timix_pl.core import registry as module
from timix_pl.core.errors import ConfigError
from timix_pl.core.registry import Registry


@pytest.fixture
def mixers() -> Registry:
    return Registry("mixing.kind", "mixing strategy", "timix_pl.mixing.strategies", none="none")


def test_own_names_come_before_those_of_plugins(mixers):
    @mixers.register("alpha")
    def alpha(grid, *, share: float = 0.5):
        """Mine. More."""

    assert mixers.names() == ["cutmix", "mixgen", "mixup", "timix", "alpha"]
    assert ("alpha" in mixers, "cutmix" in mixers, "none" in mixers) == (True, True, False)
    assert (mixers["alpha"], alpha.choice) == (alpha, "alpha")
    assert (mixers.plugin_of("alpha"), mixers.plugin_of("cutmix")) == (__name__, None)
    assert mixers.about("alpha") == "Mine. More."
    assert list(mixers.options("alpha")) == ["share"]


@pytest.mark.parametrize("name", ["cutmix", "mine"])
def test_a_name_is_given_once(mixers, name):
    other = type("Other", (), {"__module__": "other"})
    if name == "mine":
        mixers.register(name)(other)
    with pytest.raises(ConfigError, match=f"{__name__} registers the mixing strategy '{name}', which .* has already"):
        mixers.register(name)(lambda grid: None)


def test_a_module_that_is_imported_again_replaces_its_entry(mixers):
    for _ in range(2):
        mixers.register("mine")(lambda grid: None)
    assert mixers.names().count("mine") == 1


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            True,
            "mixing.kind=mixu: there is no mixing strategy 'mixu'; nearest: mixup, timix, mixgen; choose from none, cutmix, mixgen",
        ),
        (False, "trainer.callbacks=mixu: there is no callback 'mixu'; name the plugin that has it with plugins=[MODULE]"),
    ],
)
def test_an_unknown_name_is_refused(mixers, own, message):
    registry = mixers if own else Registry("trainer.callbacks", "callback")
    with pytest.raises(ConfigError) as caught:
        registry["mixu"]
    assert str(caught.value).startswith(message)


def test_the_message_about_an_unknown_name_says_which_plugins_are_broken(mixers, monkeypatch):
    monkeypatch.setattr(module, "load_installed_plugins", lambda: ["entry point a of b: the plugin c cannot be imported"])
    assert mixers.unknown("mine").endswith("plugins=[MODULE]; entry point a of b: the plugin c cannot be imported")
