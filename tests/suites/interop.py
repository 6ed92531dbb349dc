"""What PyTorch and tensordict make of our files, and we of theirs: `make test-interop`."""
import os, subprocess, sys, tempfile, warnings

warnings.filterwarnings("ignore")
import torch
import tensordict
from tensordict import TensorDict

tool, golden = sys.argv[1], "tests/golden"
folder = tempfile.mkdtemp()
passed = failed = 0


def run(*words):
    done = subprocess.run([tool, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(name, test, *arguments):
    global passed, failed
    try:
        test(*arguments)
        passed += 1
    except Exception as error:
        failed += 1
        print(f"{name}: {type(error).__name__}: {error}")


def same(official, path, weights_only):
    """Keys, their order, types, shapes and bits are the official save's: what its strict load asks for."""
    a = torch.load(official, weights_only=False)["model"]
    b = torch.load(path, weights_only=weights_only)["model"]
    assert type(a) is type(b) and list(a) == list(b), set(a) ^ set(b)
    for key, one in a.items():
        two = b[key]
        assert type(one) is type(two), (key, type(one), type(two))
        if isinstance(one, torch.Tensor):
            assert one.dtype == two.dtype and one.shape == two.shape and torch.equal(one, two), key
        else:
            assert one == two, key


class Mirror(torch.nn.Module):
    """A module tree of just these tensors; a strict load refuses missing and unexpected keys."""

    def __init__(self, state):
        super().__init__()
        for key, value in state.items():
            if not isinstance(value, torch.Tensor):
                continue
            at, parts = self, key.split(".")
            for part in parts[:-1]:
                if part not in at._modules:
                    at.add_module(part, torch.nn.Module())
                at = at._modules[part]
            at.register_buffer(parts[-1], torch.zeros_like(value))


def loads_strictly(official, path):
    mirror = Mirror(torch.load(official, weights_only=False)["model"])
    state = torch.load(path, weights_only=True)["model"]
    mirror.load_state_dict({k: v for k, v in state.items() if isinstance(v, torch.Tensor)}, strict=True)


def round_trip(name):
    official, ours, back = f"{golden}/{name}.pt", f"{folder}/{name}.safetensors", f"{folder}/{name}.pt"
    run("checkpoint", "import", official, ours)
    run("checkpoint", "export", ours, back)
    for weights_only in (True, False):
        same(official, back, weights_only)
    loads_strictly(official, back)
    again = f"{folder}/{name}.again.pt"
    torch.save(torch.load(back, weights_only=True), again)
    run("checkpoint", "import", again, f"{folder}/{name}.again.safetensors")
    assert open(ours, "rb").read() == open(f"{folder}/{name}.again.safetensors", "rb").read()


def chunk_is_read(kind, make):
    path = f"{folder}/{kind}.pt"
    torch.save(make(), path)
    shown = run("checkpoint", "show", path)
    for key in ("obs", "action", "reward", "task"):
        assert key in shown, shown


def chunk():
    n, t = 4, 11
    return TensorDict({"obs": torch.randn(n, t, 5), "action": torch.randn(n, t, 3), "reward": torch.randn(n, t),
                       "task": torch.zeros(n, t, dtype=torch.int64)}, batch_size=[n, t])


if len(sys.argv) > 2:  # of another tensordict: its chunks alone
    golden = None
for name in ("tiny-state", "tiny-episodic", "tiny-multitask", "tiny-rgb") if golden else ():
    check(name, round_trip, name)
for kind, make in {"plain": chunk, "sliced": lambda: chunk()[1:3], "locked": lambda: chunk().lock_(),
                   "joined": lambda: torch.cat([chunk(), chunk()]), "shared": lambda: chunk().share_memory_(),
                   "dict": lambda: chunk().to_dict()}.items():
    check(f"tensordict {tensordict.__version__} {kind}", chunk_is_read, kind, make)
print(f"PyTorch {torch.__version__}, tensordict {tensordict.__version__}")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
