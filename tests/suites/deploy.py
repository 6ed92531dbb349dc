"""Kubernetes manifests and the container image, without a cluster or an engine of containers.

    deploy.py FILE.deb          needs root, mmdebstrap, iproute2; kubernetes-validate and PyYAML; downloads a minimal Debian

The manifests are checked strictly against Kubernetes' own schemas. The root of the image is made by the steps of the
Containerfile's last stage, on a minimal Debian instead of debian:bookworm-slim. Then the pods of the manifests run in
it: their arguments, variables, init containers, mounts and probes; as their user, without capabilities, on a read-only
root, each in a network namespace of its own. Not run: image builders, kubelets, network policies, the autoscaler.
"""
import base64, os, re, shutil, signal, subprocess, sys, tempfile, time
import yaml

deb = os.path.abspath(sys.argv[1])
os.chdir(os.path.join(os.path.dirname(__file__), "../.."))
good = bad = 0


def check(what, condition, seen=""):
    global good, bad
    print("ok   " if condition else "FAIL ", what, flush=True)
    if condition:
        good += 1
    else:
        bad += 1
        print("      | " + str(seen).replace("\n", "\n      | "))


def run(*words, **options):
    return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


if os.geteuid() != 0:
    sys.exit("make test-deploy needs root, for a root and networks of its own")
work = tempfile.mkdtemp()
root, bridge = f"{work}/root", f"tdb{os.getpid() % 100000}"
spaces, started = [], []

# --- manifests -------------------------------------------------------------------

files = sorted(f"deploy/kubernetes/{name}" for name in os.listdir("deploy/kubernetes") if name.endswith(".yaml"))
keys = f"{work}/keys"
tool = "build/release/bin/tdmpc2"
made = run(tool, "keys", keys, "actors=2", "shards=2")
check("keys are made", made.returncode == 0, made.stdout)
secrets = run("deploy/kubernetes/secrets", keys)
check("secrets are made of them", secrets.returncode == 0, secrets.stdout)
with open(f"{work}/secrets.yaml", "w") as out:
    out.write(secrets.stdout)
validate = os.path.join(os.path.dirname(sys.executable), "kubernetes-validate")
for version in ("1.31", "1.37"):
    for file in [*files, f"{work}/secrets.yaml"]:
        seen = run(validate, "--strict", "-k", version, file)
        check(f"{os.path.basename(file)} is as Kubernetes {version} has it", seen.returncode == 0, seen.stdout)
broken = open("deploy/kubernetes/actor.yaml").read().replace("readOnlyRootFilesystem", "readOnlyRootFileSystem")
with open(f"{work}/broken.yaml", "w") as out:
    out.write(broken)
check("a misspelt word is found", run(validate, "--strict", "-k", "1.31", f"{work}/broken.yaml").returncode != 0)

objects = {}
for file in [f for f in files if "deployment" not in f] + [f"{work}/secrets.yaml"]:
    for item in yaml.safe_load_all(open(file)):
        objects[item["kind"], item["metadata"]["name"]] = item
for (kind, name), item in objects.items():
    if kind == "StatefulSet":
        labels = item["spec"]["template"]["metadata"]["labels"]
        check(f"{name} selects its pods and has a service",
              item["spec"]["selector"]["matchLabels"] == labels
              and objects["Service", item["spec"]["serviceName"]]["spec"]["selector"] == labels)
for name in ("shard", "actor"):
    secret = objects["Secret", f"tdmpc2-{name}-keys"]["data"]
    check(f"a {name} has no key of the learner's", not {"learner.key", "viewer.key", "evaluator.key"} & secret.keys(), list(secret))

# --- the image -------------------------------------------------------------------


def image():
    """The last stage of the Containerfile, step by step."""
    text = re.sub(r"\\\n", " ", open("deploy/container/Containerfile").read())
    steps = [line for line in text.splitlines() if line and not line.startswith("#")]
    last = max(i for i, line in enumerate(steps) if line.startswith("FROM "))
    base = run("mmdebstrap", "--quiet", "--variant=minbase", "bookworm", root)
    check("a minimal Debian", base.returncode == 0, base.stdout[-2000:])
    shutil.copy(deb, f"{root}/mnt")
    for name in ("resolv.conf", "hosts"):
        if os.path.exists(f"/etc/{name}"):
            shutil.copy(f"/etc/{name}", f"{root}/etc/{name}")
    found = {"user": None, "environment": {}}
    for step in steps[last + 1:]:
        word, rest = step.split(None, 1)
        if word == "RUN":
            rest = re.sub(r"--mount=\S+\s*", "", rest)
            rest = rest.replace("apt-get ", "apt-get -o APT::Sandbox::User=root ")
            seen = run("chroot", root, "sh", "-ec", rest)
            check("RUN " + rest[:60] + "...", seen.returncode == 0, seen.stdout[-2000:])
        elif word == "COPY":
            source, to = rest.split()
            os.makedirs(os.path.dirname(root + to), exist_ok=True)
            shutil.copy(source, root + to)
        elif word == "USER":
            found["user"] = int(rest.split(":")[0])
        elif word == "ENV":
            name, value = rest.split("=", 1)
            found["environment"][name] = value
        elif word not in ("WORKDIR", "CMD"):
            check(f"a step that this test knows: {word}", False)
    os.remove(f"{root}/mnt/{os.path.basename(deb)}")
    return found


# --- pods ------------------------------------------------------------------------


class Pod:
    def __init__(self, owner, number, address):
        spec = objects["StatefulSet", owner]["spec"]["template"]["spec"]
        self.name, self.number = f"{owner}-{number}", number
        self.spec, self.main = spec, spec["containers"][0]
        self.folder = f"{work}/{self.name}"
        self.space = f"td{os.getpid() % 100000}-{address}"
        self.volumes = {}
        os.makedirs(self.folder)
        for volume in spec["volumes"]:
            self.volumes[volume["name"]] = self.volume(volume)
        for claim in objects["StatefulSet", owner]["spec"].get("volumeClaimTemplates", []):
            self.volumes[claim["metadata"]["name"]] = self.fresh(claim["metadata"]["name"])
        self.network(address)

    def fresh(self, name):
        path = f"{self.folder}/{name}"
        os.makedirs(path)
        os.chown(path, 0, self.spec["securityContext"]["fsGroup"])
        os.chmod(path, 0o2775)
        return path

    def volume(self, volume):
        """As the kubelet lays it out: owned by root, the group's to read or to write."""
        path = self.fresh(volume["name"])
        contents = {}
        if "secret" in volume:
            contents = {n: base64.b64decode(v) for n, v in objects["Secret", volume["secret"]["secretName"]]["data"].items()}
        elif "configMap" in volume:
            contents = {n: v.encode() for n, v in objects["ConfigMap", volume["configMap"]["name"]]["data"].items()}
        for name, data in contents.items():
            with open(f"{path}/{name}", "wb") as out:
                out.write(data)
            os.chown(f"{path}/{name}", 0, self.spec["securityContext"]["fsGroup"])
            os.chmod(f"{path}/{name}", 0o440 if "secret" in volume else 0o644)
        return path

    def network(self, address):
        link = f"tdv{os.getpid() % 10000}x{address}"
        for words in (f"netns add {self.space}", f"link add {link} type veth peer name eth0 netns {self.space}",
                      f"link set {link} master {bridge} up", f"-n {self.space} addr add 10.77.7.{address}/24 dev eth0",
                      f"-n {self.space} link set eth0 up", f"-n {self.space} link set lo up"):
            subprocess.run(["ip", *words.split()], check=True)
            if words.startswith("netns add"):
                spaces.append(self.space)

    def command(self, container, words):
        """In its namespaces: mounts, then the root that cannot be written, then the user without any rights."""
        context, user = container["securityContext"], self.spec["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"] and context["capabilities"] == {"drop": ["ALL"]}
        mine = f"{self.folder}/root"
        os.makedirs(mine, exist_ok=True)
        script = [f"mount --rbind {root} {mine}", f"mount -o remount,bind,ro {mine}", f"mount -t proc proc {mine}/proc",
                  f"mount --bind /dev {mine}/dev", f"mount --bind {work}/hosts {mine}/etc/hosts"]
        for mount in container["volumeMounts"]:
            to = mine + mount["mountPath"]
            script += [f"mount --bind {self.volumes[mount['name']]} {to}"]
            if mount.get("readOnly"):
                script += [f"mount -o remount,bind,ro {to}"]
        variables = {"NUMBER": str(self.number), "HOST": self.name}
        named = {v["name"] for v in container.get("env", [])}
        words = [re.sub(r"\$\((\w+)\)", lambda m: variables[m[1]] if m[1] in named else m[0], w) for w in words]
        group = user["fsGroup"]
        script.append(f"exec chroot {mine} setpriv --reuid {user['runAsUser']} --regid {user['runAsGroup']} --groups {group} "
                      f"--bounding-set=-all --inh-caps=-all --no-new-privs env -i PATH=/usr/bin:/bin HOME=/ "
                      + " ".join(f"{k}={v}" for k, v in built["environment"].items()) + ' sh -c \'cd /data && exec "$@"\' sh "$@"')
        return ["ip", "netns", "exec", self.space, "unshare", "-m", "sh", "-ec", "\n".join(script), "sh", *words]

    def init(self):
        for container in self.spec["initContainers"]:
            seen = run(*self.command(container, container["command"]))
            check(f"{self.name}: init container {container['name']}", seen.returncode == 0, seen.stdout)

    def start(self):
        self.log = open(f"{self.folder}/log", "w+")
        self.process = subprocess.Popen(self.command(self.main, self.main["args"]), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        started.append(self)

    def text(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def probe(self, kind, words=None):
        return run(*self.command(self.main, words or self.main[kind]["exec"]["command"])).returncode

    def ready(self):
        for _ in range(60):
            if self.process.poll() is not None or self.probe("readinessProbe") == 0:
                break
            time.sleep(0.5)
        check(f"{self.name} is ready", self.process.poll() is None and self.probe("readinessProbe") == 0, self.text())


built = {}
try:
    built = image()
    for name in ("data", "keys", "etc/tdmpc2", "run", "tmp"):
        check(f"/{name} is there to mount on", os.path.isdir(f"{root}/{name}"))
    size = int(run("du", "-smx", root).stdout.split()[0])
    check(f"the root is small ({size} MB)", size < 700, size)
    check("no compiler, no Python in it", not any(os.path.exists(f"{root}/usr/bin/{n}") for n in ("cc", "gcc", "python3")))
    check("the manifests' user is the image's", all(o["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == built["user"]
                                                    for (k, _), o in objects.items() if k == "StatefulSet"))

    # a small run instead of walker-walk
    config = objects["ConfigMap", "tdmpc2"]["data"]
    small = "enc_dim=16 mlp_dim=16 latent_dim=16 num_q=2 num_bins=11 batch_size=8 num_samples=16 num_elites=4 num_pi_trajs=4 iterations=2 " \
            "seed_steps=300 eval_episodes=1 eval_first=false"
    config["learner.yaml"] = re.sub("task: .*\n", "task: toy\n", re.sub("steps: 5.*\n", "steps: 3000\n", config["learner.yaml"])) \
        + "".join(w.replace("=", ": ") + "\n" for w in small.split())
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
    pods = [Pod("tdmpc2-learner", 0, 10), Pod("tdmpc2-shard", 1, 11), Pod("tdmpc2-actor", 0, 12), Pod("tdmpc2-actor", 1, 13)]
    with open(f"{work}/hosts", "w") as out:
        out.write("127.0.0.1 localhost\n")
        for address, pod in zip((10, 11, 12, 13), pods):
            out.write(f"10.77.7.{address} {pod.name}.{pod.name.rsplit('-', 1)[0]} {pod.name}\n")
    for pod in pods:
        pod.init()
        pod.start()
    learner, shard, actor, other = pods
    for pod in pods:
        pod.ready()
    check("the root cannot be written", actor.probe("", ["touch", "/usr/x"]) != 0 and actor.probe("", ["touch", "/tmp/x"]) == 0)
    check("it is nobody there", run(*actor.command(actor.main, ["id", "-u"])).stdout.strip() == str(built["user"]))
    check("a probe without the token fails", actor.probe("", ["/usr/libexec/tdmpc2-probe", "9100"]) != 0)
    check("a secret key is its owner's alone", oct(os.stat(f"{actor.volumes['keys']}/actor-0.key").st_mode)[-3:] == "600")
    check("no other's key", sorted(os.listdir(actor.volumes["keys"])) == ["actor-0.key", "allowed", "token"])
    ended = learner.process.wait(120)
    check("the run comes to its end", ended == 0, learner.text())
    results = open(f"{learner.volumes['data']}/run/eval.csv").read() if os.path.exists(f"{learner.volumes['data']}/run/eval.csv") else ""
    check("with an evaluation", re.search(r"^3000,", results, re.M) is not None, results + learner.text())
    check("both shards kept rows", "shard 1 joined" in learner.text() or "shard 1 joined" in open(f"{learner.folder}/log").read(), learner.text())
    for pod in (shard, actor, other):
        check(f"{pod.name} left with the run", pod.process.wait(60) == 0, pod.text())
finally:
    for pod in started:
        if pod.process.poll() is None:
            pod.process.send_signal(signal.SIGTERM)
            try:
                pod.process.wait(20)
            except subprocess.TimeoutExpired:
                pod.process.kill()
    for space in spaces:
        run("ip", "netns", "del", space)
    run("ip", "link", "del", bridge)
    shutil.rmtree(work, ignore_errors=True)

print(f"{good} passed, {bad} failed")
sys.exit(bad > 0)
