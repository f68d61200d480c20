"""The reference: every public name stands on one page, and says what its docstring has to say."""

import ast
import inspect
import re
import textwrap
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import is_typeddict

import pytest

import vitlens as vl

PAGES = Path(__file__).parents[2] / "docs" / "reference"
ROOMS = (
    "analyses", "comparison", "errors", "functional", "images", "models", "names", "report", "running",
    "saes", "testing", "training",
)  # fmt: skip
SECTION = re.compile(r"^(Args|Attributes|Example|Raises|Returns|Source|Yields):", re.M)
NO_EXAMPLE = {
    "images.AttackObjective": "a protocol; `ActivationChange` is one, with an example",
    "images.Batch": "made by `batches`, which has an example",
}
"""Names with neither an example nor a pointer to one -> why; errors besides, which are raised."""


def public_names(room):
    """The names that a room hands on: its `__all__`, or what it defines without an underscore."""
    module = import_module(f"vitlens.{room}")
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (name.isupper() or getattr(value, "__module__", "") == module.__name__)
    ]


def public():
    """Every public object once, under the first room's name for it, with all of its names."""
    found = {}
    for room in ROOMS:
        for name in public_names(room):
            value = getattr(import_module(f"vitlens.{room}"), name)
            found.setdefault(id(value), (value, []))[1].append(f"{room}.{name}")
    for name in vl.__all__:
        if name not in ROOMS:
            found[id(getattr(vl, name))][1].append(name)
    return {names[0]: (value, names) for value, names in found.values()}


PUBLIC = public()
CLASSES = {label: value for label, (value, _) in PUBLIC.items() if inspect.isclass(value)}
FUNCTIONS = {label: value for label, (value, _) in PUBLIC.items() if inspect.isroutine(value)}
OURS = {label: value for label, value in CLASSES.items() if value.__module__.startswith("vitlens")}


def stated_as(label):
    """What a page may call a public object: any of its names, unless its module is called like it.

    The site reads sources, where such a name is the module's; there the page has the longer one.
    """
    value, names = PUBLIC[label]
    module, name = getattr(value, "__module__", ""), label.rpartition(".")[2]
    if module.startswith("vitlens.") and module.endswith(f".{name}"):
        return [f"{module.removeprefix('vitlens.')}.{name}"]
    return names


def test_every_public_name_stands_on_exactly_one_page_of_the_reference():
    stated = Counter(
        name
        for page in PAGES.glob("*.md")
        for name in re.findall(r"^#+ ::: vitlens\.(\S+)$", page.read_text(encoding="utf-8"), re.M)
    )
    wanted = {label: stated_as(label) for label in PUBLIC}
    n_places = {label: sum(stated[name] for name in names) for label, names in wanted.items()}
    assert {label: n for label, n in n_places.items() if n != 1} == {}
    assert set(stated) - {name for names in wanted.values() for name in names} == set()


def test_every_page_of_the_reference_says_in_a_few_sentences_where_to_begin():
    for page in PAGES.glob("*.md"):
        _, introduction, *_ = page.read_text(encoding="utf-8").split("\n\n")
        assert 1 <= introduction.count(". ") + introduction.endswith(".") <= 4, page.name


def document(value):
    return inspect.cleandoc(value.__doc__ or "")


def sections(doc):
    """Heading -> what stands below it; under "" what stands before the first."""
    parts = SECTION.split(doc)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def parameters(value):
    try:
        signature = inspect.signature(value)
    except ValueError:
        return []
    return [name for name in signature.parameters if name not in ("self", "cls")]


def undescribed(names, described):
    """The parameters that a list of `name: what` leaves out; one line may speak of several."""
    stated = {
        name.strip(" *`")
        for line in re.findall(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \(.*?\))?:", described, re.M)
        for name in line.split(",")
    }
    return [name for name in names if name not in stated]


def raised(function):
    """The errors of vitlens's that a function raises in its own body, by the names that it raises."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    calls = (node.exc for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise) and node.exc)
    names = {getattr(call.func, "id", "") if isinstance(call, ast.Call) else "" for call in calls}
    return {name for name in names if hasattr(vl.errors, name)}


def unsaid(function, doc):
    said = sections(doc)
    complaints = [f"Args: {name}" for name in undescribed(parameters(function), said.get("Args", ""))]
    answer = inspect.signature(function).return_annotation
    if answer not in (None, "None", inspect.Signature.empty) and not {"Returns", "Yields"} & said.keys():
        complaints.append("Returns")
    return complaints + [f"Raises: {name}" for name in raised(function) if name not in said.get("Raises", "")]


@pytest.mark.parametrize("label", FUNCTIONS)
def test_a_function_says_what_it_takes_gives_and_raises(label):
    assert unsaid(FUNCTIONS[label], document(FUNCTIONS[label])) == []


@pytest.mark.parametrize("label", OURS)
def test_a_class_says_what_it_is_made_of_and_what_it_refuses(label):
    kind = OURS[label]
    said = sections(document(kind))
    assert said[""]
    if not getattr(kind, "_is_protocol", False) and not issubclass(kind, vl.errors.VitlensError):
        # The fields of a dataclass are its arguments, by either name.
        described = said.get("Args", "") + said.get("Attributes", "")
        assert undescribed(parameters(kind), described) == []
    for name in ("__init__", "__post_init__"):
        if name in vars(kind) and inspect.isfunction(vars(kind)[name]):
            source = inspect.unwrap(vars(kind)[name])
            if source.__code__.co_filename.startswith("<"):
                continue  # written by dataclass
            assert [error for error in raised(source) if error not in said.get("Raises", "")] == []


@pytest.mark.parametrize("label", [*FUNCTIONS, *OURS])
def test_a_public_name_has_an_example_or_says_where_one_is(label):
    value = PUBLIC[label][0]
    if inspect.isclass(value) and issubclass(value, vl.errors.VitlensError):
        return  # an error is raised, not made
    doc = document(value)
    example = sections(doc).get("Example", "")
    assert ">>>" in example or re.search(r"\bSee `(vitlens\.)?\w+", doc) or label in NO_EXAMPLE


def methods():
    """Public methods and properties of the public classes, but those that a protocol or base describes."""
    for label, kind in OURS.items():
        described = {
            name
            for other in {*OURS.values(), *kind.__mro__} - {kind}
            if not is_typeddict(other)
            if getattr(other, "_is_protocol", False) or issubclass(kind, other)
            for name, member in vars(other).items()
            if getattr(member, "__doc__", None)
        }
        for name, member in vars(kind).items():
            member = getattr(member, "__func__", getattr(member, "fget", member))
            if not name.startswith("_") and inspect.isfunction(member):
                yield f"{label}.{name}", kind, member, name in described


METHODS = {label: rest for label, *rest in methods()}


@pytest.mark.parametrize("label", METHODS)
def test_a_method_says_what_it_takes_gives_and_raises_or_names_it_in_a_sentence(label):
    kind, method, is_described_elsewhere = METHODS[label]
    doc = document(method)
    name = label.rpartition(".")[2]
    assert doc or not undescribed([name], sections(document(kind)).get("Attributes", ""))
    if is_described_elsewhere or not doc:
        return
    in_words = f"{sections(doc)['']} {sections(document(kind))['']}"
    is_short = "Args" not in sections(doc)
    missing = [
        complaint
        for complaint in unsaid(method, doc)
        if not (complaint.startswith("Args: ") and f"`{complaint[6:]}`" in in_words)
        and not (complaint == "Returns" and is_short)
    ]
    assert missing == []


def test_the_three_lists_of_the_packages_own_names_agree():
    tree = ast.parse(Path(vl.__file__).read_text(encoding="utf-8"))
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        node.module: sorted(alias.name for alias in node.names)
        for node in checked.body
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert typed == {room: sorted(names) for room, names in vl._ROOMS.items() if names}
    assert sorted(vl.__all__) == sorted(
        {*vl._ROOMS, *vl._ROOM_OF, "errors", "names"} - {"analyses", "models", "running"}
    )


def sources():
    """Every `Source:` of a docstring, where it stands, as one line."""
    for path in Path(vl.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for text in re.findall(r"^Source:.*(?:\n.*\S.*)*", ast.get_docstring(node) or "", re.M):
                    yield f"{path.name}: {getattr(node, 'name', '')}", text


def test_a_source_names_a_work_and_its_year_or_says_where_it_is_named():
    found = dict(sources())
    assert len(found) > 80
    elsewhere = re.compile(r"^Source: as (for|in) `|^Source: (scipy|ImageMagick)'s `")
    missing = {
        place: text
        for place, text in found.items()
        if not re.search(r"[\w.] \((1[89]|20)\d\d\)", text) and not elsewhere.search(text)
    }
    assert missing == {}


def test_a_source_is_one_paragraph_which_the_site_shows_as_such():
    assert [place for place, text in sources() if re.search(r"\n ", text)] == []
