"""The check that a contributor may have git run before a commit."""
import pytest

from imgtk_test import ROOT, environment, execute, tool

pytestmark = pytest.mark.slow  # it has nothing to do with how imgtk was built


@pytest.fixture
def repository(tmp_path):
    """An empty one whose only hook is ours. Tools that the hook can do without are not found in it."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("git", "sh", "grep", "cut", "head", "dirname"):
        (tools / name).symlink_to(tool(name))
    folder = tmp_path / "repository"
    env = environment(PATH=tools, HOME=tmp_path, GIT_CONFIG_NOSYSTEM="1", GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b",
                      GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@b")
    execute(["git", "init", "-q", folder], env=env)
    execute(["git", "config", "core.hooksPath", ROOT / "conf/hooks"], cwd=folder, env=env)

    def commit(name, text, code=0):
        (folder / name).write_text(text)
        execute(["git", "add", name], cwd=folder, env=env)
        return execute(["git", "commit", "-q", "-m", "x"], cwd=folder, env=env, code=code)

    return commit


def test_what_is_well_goes_through(repository):
    repository("a.c", "int a;\n")
    repository("a.md", "[code](a.c), [web](https://host/), [part](#part), [both](a.c#part)\n" + "wide " * 40 + "wide\n")


@pytest.mark.parametrize("name, text, message", [
    ("a.c", "int a; \n", "blanks at the end of a line"),
    ("a.c", "int a;" + " /* long */" * 12 + "\n", "longer than 120 characters"),
    ("a.md", "[code](missing.c)\n", "there is no missing.c"),
])
def test_mistakes_are_held_back(repository, name, text, message):
    assert message in repository(name, text, code=1).err


def test_lines_that_were_there_are_left_alone(repository, tmp_path):
    long = "int a;" + " /* long */" * 12 + "\n"
    (tmp_path / "repository" / "a.c").write_text(long)
    env = environment(HOME=tmp_path, GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a",
                      GIT_COMMITTER_EMAIL="a@b")
    execute(["git", "add", "a.c"], cwd=tmp_path / "repository", env=env)
    execute(["git", "commit", "-q", "--no-verify", "-m", "x"], cwd=tmp_path / "repository", env=env)
    repository("a.c", long + "int b;\n")
