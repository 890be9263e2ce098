"""Modules from outside of timix-pl: named ones must import, those of installed packages need not."""

from importlib.metadata import EntryPoint

import pytest

from timix_pl.core import plugins
from timix_pl.core.choices import CALLBACKS
from timix_pl.core.errors import ConfigError
from timix_pl.core.plugins import load_installed_plugins, load_plugins


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of that name."""
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, text: (tmp_path / f"{name}.py").write_text(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "plugins: there is no module plugin_0; install its package, or start in the folder that contains it"),
        ("import not_there", "plugins: the plugin plugin_1 imports not_there, which is not installed"),
        ("1 / 0", "plugins: the plugin plugin_2 cannot be imported: ZeroDivisionError: division by zero"),
        (
            "import timix_pl.core.choices as c\nc.MIXERS.register('cutmix')(print)",
            "mixing.kind: builtins registers the mixing strategy 'cutmix', which",
        ),
    ],
)
def test_a_named_plugin_that_cannot_be_imported_is_refused(text, message, module, request):
    name = f"plugin_{request.node.callspec.indices['text']}"
    if text is not None:
        module(name, text)
    with pytest.raises(ConfigError) as caught:
        load_plugins([name])
    assert str(caught.value).startswith(message)


def test_a_broken_installed_plugin_is_a_warning_and_the_others_are_loaded(module, monkeypatch, caplog):
    module("broken_plugin", "raise OSError('no such driver')")
    module("sound_plugin", "from timix_pl.core.choices import CALLBACKS\nCALLBACKS.register('sound')(lambda: None)")
    points = [EntryPoint("one", "broken_plugin", plugins.GROUP), EntryPoint("two", "sound_plugin", plugins.GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    monkeypatch.setattr(CALLBACKS, "_entries", {})
    load_installed_plugins.cache_clear()
    try:
        assert CALLBACKS.names() == ["sound"]
        assert len(caplog.messages) == 1 and "broken_plugin cannot be imported: OSError: no such driver" in caplog.messages[0]
        with pytest.raises(ConfigError, match=r"there is no callback 'mine'(.|\n)*no such driver"):
            CALLBACKS["mine"]
    finally:
        load_installed_plugins.cache_clear()
