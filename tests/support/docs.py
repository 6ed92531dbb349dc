"""Hold the documents to the programs: every command in them is run, or at least exists as it is written.

    docs.py BIN PAGE.md...      TD_DOCS=all: the long blocks too

Blocks marked ```sh are run, those of a page one after another in one shell and one empty folder, as a reader would type
them. A comment before a block says otherwise:

    <!-- docs-test: long -->                  run with TD_DOCS=all alone; `tdmpc2 train` takes few steps with a toy model
    <!-- docs-test: long, each anew -->       the same, each `tdmpc2 train` in a directory of its own
    <!-- docs-test: elsewhere: REASON -->     not run here: counted, and looked at word by word
    <!-- docs-test: at the root -->           run in the folder with the Makefile
    <!-- docs-test: exits 2 -->               its last command ends with this code
    <!-- docs-test: setup                     run, not shown; `setup long` with TD_DOCS=all alone
    ... -->
    <!-- docs-test: says -->                  a block of text: each line occurs in what was run last, `...` is anything
    <!-- docs-test: in the source -->         a block of text: each piece between `...` is in a string of the programs

All blocks, run or not, are looked at: commands, subcommands, options and their values, flags, targets of make, files of
the repository; options in YAML too; in the text between them the same in `code`, names of metrics, links with their anchors.
"""
import glob
import html
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '..', '..'))
ALL = os.environ.get('TD_DOCS') == 'all' or bool(os.environ.get('TD_LONG'))
GENERATED = {'options.md', 'metrics.md', 'commands.md'}       # docs/build makes them
FOLDERS = {'actor', 'common', 'deploy', 'docs', 'learner', 'proto', 'tests', 'tools'}
SMALL = ('enc_dim=16 mlp_dim=16 latent_dim=16 num_q=2 batch_size=16 num_samples=16 num_elites=4 num_pi_trajs=2 '
         'iterations=1 seed_steps=100 eval_freq=200 eval_episodes=1')
# What `tdmpc2 train` of a long block is given in addition: last words win. Widths unless it has them from a checkpoint.
WIDTHS = 'enc_dim=16 mlp_dim=16 latent_dim=16 num_q=2 model_size=0 task_dim=0'
SHRUNK = 'batch_size=16 num_samples=16 num_elites=4 num_pi_trajs=2 iterations=1 eval_freq=1000 eval_episodes=1 actors=1'
# Programs of others that the pages use; builtins of the shell too.
OTHERS = set('''[ apt-get cat cc cd chmod cp curl diff echo exit export false git grep head install ip journalctl kill kubectl
    ls man mandoc mkdir mktemp openssl podman printf promtool prometheus python3 rm rsync sbatch scancel scontrol scp sed seq sleep
    sort squeue ssh srun sudo systemctl systemd-analyze systemd-sysusers tail tensorboard test timeout touch true wait wandb
    wc'''.split())
KEYWORDS = {'do', 'done', 'then', 'else', 'fi', 'if', 'while', 'until', '{', '}', '!', 'time', 'esac'}
# `name=value` in the text that is no option of ours
FOREIGN_WORDS = {'role', 'shard', 'run', 'instance', 'start_new_session', 'render_mode'}

bad = []


def complain(where, what):
    if f'{where}: {what}' not in bad:
        bad.append(f'{where}: {what}')


# --- what there is ------------------------------------------------------------------------------------

class Programs:
    """What the programs, the Makefile and the tables say of themselves."""

    def __init__(self, folder):
        self.folder, self.helps = folder, {}
        self.commands = set(re.findall(r'^COMMAND\((\w+),', self.file('tools/commands.def'), re.M))
        makefile = self.file('Makefile')
        self.targets = {word for line in re.findall(r'^([a-z][a-z -]*):(?!=)', makefile, re.M) for word in line.split()}
        self.variables = set(re.findall(r'\b([A-Z][A-Z_]+)\b', makefile))
        self.options = {}
        for name, _, legal in re.findall(r'^\| `(\w+)` \| (.*?) \| (.*?) \|', self.run('tdmpc2', 'train', '--markdown'), re.M):
            self.options[name] = legal
        self.tasks = set(re.findall(r'^\s*([a-z]+-[a-z0-9-]+|toy)\b', self.run('tdmpc2', 'env', 'list'), re.M))
        self.tasks |= {'toy', 'toy-episodic', 'toy-copy', 'toy-oppose'}    # for tests: env list leaves them out
        self.metrics = set(re.findall(r'\b(tdmpc2_\w+)', self.run('tdmpc2', 'manual', 'metrics')))
        self.metrics |= {'tdmpc2_' + name for name in ('build_info', 'uptime_seconds', 'is_waiting', 'cpu_seconds_total',
                                                      'snapshot_age_seconds')}
        self.helped = set(self.options)
        for command in self.commands:
            self.helped |= self.words_of(command)

    @staticmethod
    def file(path):
        with open(os.path.join(ROOT, path), encoding='utf-8') as file:
            return file.read()

    def run(self, program, *words):
        done = subprocess.run([os.path.join(self.folder, program), *words], capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            complain(' '.join([program, *words]), f'ends with {done.returncode}: {done.stderr.strip()}')
        return done.stdout

    def help(self, command):
        if command not in self.helps:
            self.helps[command] = self.run('tdmpc2', command, '--help')
        return self.helps[command]

    def words_of(self, command):
        return set(re.findall(r'\b([a-z_]+)=', self.help(command)))


def source_strings():
    """All string literals of the programs, neighbours joined, as one text."""
    literal = r'"(?:[^"\\\n]|\\.)*"'
    texts = []
    for path in glob.glob(ROOT + '/*/**/*.[chd]*', recursive=True):
        if path.startswith((ROOT + '/build', ROOT + '/third_party')) or not path.endswith(('.c', '.h', '.def')):
            continue
        with open(path, encoding='utf-8') as file:
            text = re.sub(r'"\s*(?:PRI\w+)\s*"', '%d', file.read())
        for run in re.findall(literal + r'(?:\s*' + literal + ')*', text):
            texts.append(''.join(part[1:-1] for part in re.findall(literal, run)).replace('\\"', '"'))
    return '\n'.join(texts)


# --- pages --------------------------------------------------------------------------------------------

class Item:
    """A block, or hidden code; `kind` is sh, text, setup, or what stands after the fence."""

    def __init__(self, page, line, kind, code, marks):
        self.page, self.line, self.kind, self.code = page, line, kind, code
        marks = [part.strip() for mark in marks for part in (mark.split(',') if ':' not in mark else [mark])]
        self.marks = {mark.partition(':')[0].strip(): mark.partition(':')[2].strip() for mark in marks}
        self.where = f'{os.path.relpath(page, ROOT) if page.startswith(ROOT) else os.path.basename(page)}:{line}'
        self.log = None
        known = {'long', 'each anew', 'elsewhere', 'at the root', 'says', 'in the source', 'setup'}
        for mark in self.marks:
            if mark not in known and not re.fullmatch(r'exits \d+', mark):
                complain(self.where, f'unknown mark: docs-test: {mark}')
        if 'elsewhere' in self.marks and not self.marks['elsewhere']:
            complain(self.where, 'elsewhere without a reason')

    def runs(self):
        if self.kind not in ('sh', 'setup') or 'elsewhere' in self.marks:
            return False
        return ALL or 'long' not in self.marks

    def exit_code(self):
        for mark in self.marks:
            if mark.startswith('exits '):
                return int(mark.split()[1])
        return 0


def read_page(path):
    """The items of a page in order, and its text without them: [(line, text)]."""
    with open(path, encoding='utf-8') as file:
        lines = file.read().split('\n')
    items, prose, marks, at = [], [], [], 0
    while at < len(lines):
        line, start = lines[at], at + 1
        fence = re.match(r'^( *)```(\w*)', line)
        if line.strip().startswith('<!-- docs-test:'):
            text = line
            while '-->' not in text and at + 1 < len(lines):
                at += 1
                text += '\n' + lines[at]
            text = text.partition('docs-test:')[2].rpartition('-->')[0]
            first, _, code = text.partition('\n')
            if first.split()[:1] == ['setup']:
                items.append(Item(path, start, 'setup', code, ['setup'] + first.split()[1:]))
            else:
                marks.append(' '.join(text.split()))
        elif fence:
            indent, kind, code = len(fence[1]), fence[2], []
            at += 1
            while at < len(lines) and not lines[at].strip().startswith('```'):
                code.append(lines[at][min(indent, len(lines[at]) - len(lines[at].lstrip())):])
                at += 1
            items.append(Item(path, start, kind, '\n'.join(code) + '\n', marks))
            marks = []
        else:
            prose.append((start, re.sub('<!--.*?-->', '', line)))
        at += 1
    if marks:
        complain(f'{path}', 'a docs-test comment with no block behind it')
    return items, prose


# --- looking at words ---------------------------------------------------------------------------------

def commands_of(code):
    """The simple commands of some shell code, as lists of words."""
    code = re.sub(r'(?ms)^(.*<<-? *[\'"]?(\w+)[\'"]?[^\n]*)\n.*?^\s*\2$', r'\1', code)
    code = code.replace('\\\n', '')
    code = re.sub(r'(?m)(^|[ \t])#.*$', r'\1', code)
    lexer = shlex.shlex(code, posix=True, punctuation_chars=';|&()<>\n')
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ' \t', True, ''
    command, skip = [], False
    for token in lexer:
        if token and all(character in ';|&()<>\n' for character in token):
            skip = token.strip('\n') in ('<', '>', '>>', '>&', '<<<', '<<', '&>')
            if skip or token == '&&' and not command:
                continue
            if command:
                yield command
            command = []
        elif skip:
            skip = False
        else:
            command.append(token)
    if command:
        yield command


def check_value(where, programs, key, value):
    """An option's value against what the table says is legal; capitals stand for something."""
    legal = programs.options.get(key)
    if legal is None or not value or re.search(r'[A-Z$|]', value) or '...' in value:
        return
    if key in ('task', 'tasks', 'seed_tasks', 'finetune_task'):
        for task in value.replace('\\', '').split(','):
            plain = task and not re.search(r'[:/.*]', task) and not task.isdigit()
            if plain and task not in programs.tasks | {'mt30', 'mt80', 'mean', 'fresh'}:
                complain(where, f'{key}={value}: there is no task {task}')
    elif legal == 'true, false':
        if value not in ('true', 'false'):
            complain(where, f'{key}={value}: neither true nor false')
    elif ' or ' in legal:
        if value not in legal.split(' or '):
            complain(where, f'{key}={value}: {legal}')
    elif ' to ' in legal:
        low, high = map(float, legal.split(' to '))
        try:
            inside = low <= float(value) <= high
        except ValueError:
            inside = False
        if not inside:
            complain(where, f'{key}={value}: not in {legal}')


def check_tdmpc2(where, programs, words):
    if words[0] == 'tdmpc2':
        command = words[1] if len(words) > 1 else ''
        if command in ('--help', '--version', '') or not command[0].isalpha() or command.isupper():
            return
        for name in command.split('|'):
            if name not in programs.commands:
                return complain(where, f'there is no command tdmpc2 {name}')
        command, rest = command.split('|')[0], words[2:]
        text, known = programs.help(command), programs.words_of(command)
        if command in ('train', 'eval', 'bench', 'golden'):
            known = known | set(programs.options)
        if rest and re.fullmatch(r'[a-z]+(\|[a-z]+)*', rest[0]):
            for verb in rest[0].split('|'):
                if not re.search(rf'\b{verb}\b', text) and not os.path.exists(verb) and command not in ('keys', 'logs'):
                    complain(where, f'tdmpc2 {command} knows no {verb}')
        name = 'tdmpc2 ' + command
    else:
        name, rest, known, text = words[0], words[1:], set(programs.options), '--help'
    for word in rest:
        word = word.strip('[]')
        key, equals, value = word.partition('=')
        if word.startswith('--'):
            if not re.search(rf'{re.escape(key)}\b', text) and word != '--help':
                complain(where, f'{name} has no {word}')
        elif equals and re.fullmatch(r'[a-z_]\w*', key):
            if key not in known:
                complain(where, f'{name} knows no option {key}=')
            check_value(where, programs, key, value)


def check_make(where, programs, words):
    for word in words[1:]:
        key, equals, _ = word.partition('=')
        if word.startswith('-') or not re.match(r'[A-Za-z]', word):
            continue
        if equals and key not in programs.variables:
            complain(where, f'the Makefile has no {key}=')
        elif not equals and word not in programs.targets and not word.isupper():
            complain(where, f'there is no make {word}')


def check_path(where, path):
    """A file of the repository: `deploy/demo`, with * and {a,b} as in the shell."""
    path = path.rstrip('.,:;')
    if path.split('/')[0] not in FOLDERS or re.search(r'[A-Z<$]{2,}|\.\.\.', path.replace('README', '')):
        return
    pieces = re.match(r'(.*)\{(.*)\}(.*)$', path)
    for each in [pieces[1] + part + pieces[3] for part in pieces[2].split(',')] if pieces else [path]:
        each = each.split('#')[0]
        if not glob.glob(os.path.join(ROOT, each)) and not glob.glob(os.path.join(ROOT, each + '.*')):
            complain(where, f'there is no {each}')


def check_commands(where, programs, code, strict):
    try:
        commands = list(commands_of(code))
    except ValueError as error:
        return complain(where, f'cannot be read as shell code: {error}') if strict else None
    made = set()
    for words in commands:
        while words and (words[0] in KEYWORDS or re.match(r'[A-Za-z_]\w*=', words[0]) or words[0] in ('sudo', 'env')):
            drop = 3 if words[0] == 'sudo' and words[1:2] == ['-u'] else 1
            words = words[drop:]
        if not words or words[0] in ('for', 'case') or words[0].isdigit():
            continue
        first = os.path.basename(words[0]) if words[0].startswith('build/') else words[0]
        for word in words:
            if re.match(r'[a-z]+/', word) and '=' not in word:
                check_path(where, word)
        if re.fullmatch(r'tdmpc2(-learner|-replay|-actor)?', first):
            check_tdmpc2(where, programs, [first] + words[1:])
        elif first == 'make':
            check_make(where, programs, words)
        elif strict and '/' not in first and first not in OTHERS and not first.startswith('$') and first not in made:
            complain(where, f'{first}: no command that is known (tests/support/docs.py has the list)')
    return None


def check_yaml(where, programs, code):
    """Options in YAML: those of a cluster file's `options:`, or of a file of options alone, known by its `task:`."""
    code = re.sub(r'(?m)(^|[ \t])#.*$', '', code)
    pairs = [pair for inside in re.findall(r'\boptions: *\{([^}]*)\}', code) for pair in re.split(r',\s+', inside.strip())]
    for indent, lines in re.findall(r'(?m)^( *)options: *\n((?:\1 +.*\n?)+)', code):
        pairs += [line.strip() for line in lines.split('\n') if line.strip()]
    if re.search(r'(?m)^(task|tasks): ', code):
        pairs += re.findall(r'(?m)^\w+:.*$', code)
    for pair in pairs:
        key, _, value = pair.partition(':')
        if key not in programs.options:
            complain(where, f'there is no option {key}:')
        check_value(where, programs, key, value.strip().strip('\'"'))


def check_prose(page, programs, prose):
    name = os.path.relpath(page, ROOT) if page.startswith(ROOT) else os.path.basename(page)
    text = '\n'.join(line for _, line in prose)
    numbers = [number for number, line in prose for _ in range(len(line) + 1)]
    for span in re.finditer(r'(?<!`)`([^`]+)`(?!`)', text):
        where, code = f'{name}:{numbers[span.start()]}', ' '.join(span[1].split())
        if re.match(r'(tdmpc2(-\w+)?|make) ', code):
            check_commands(where, programs, code.replace('|', '\\|'), False)
        elif re.match(r'[a-z_]+=', code):
            for word in code.split():
                key, equals, value = word.partition('=')
                if equals and re.fullmatch('[a-z_]+', key) and key not in programs.helped | FOREIGN_WORDS:
                    complain(where, f'there is no option {key}=')
                check_value(where, programs, key, value)
        elif re.fullmatch(r'[\w./*{},-]+', code) and '/' in code:
            check_path(where, code)
        for metric in re.findall(r'\btdmpc2_[a-z0-9_]+\b(?!\*)', code):
            if re.sub(r'(_seconds)_(count|sum|bucket)$', r'\1', metric) not in programs.metrics and metric not in (
                    'tdmpc2_bridge', 'tdmpc2_env'):
                complain(where, f'there is no metric {metric}')


# --- links --------------------------------------------------------------------------------------------

def anchors_of(path):
    """Anchors of a page's headings, as MkDocs and GitHub make them."""
    items, prose = read_page(path)
    found = set()
    for _, line in prose:
        heading = re.match(r'#+ +(.*)', line)
        if heading:
            words = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', html.unescape(heading[1])).replace('`', '').strip().lower()
            found.add(re.sub(r'\s+', '-', re.sub(r'[^\w\s-]', '', words)))
    return found


def check_links(page, prose):
    name = os.path.relpath(page, ROOT) if page.startswith(ROOT) else os.path.basename(page)
    for number, line in prose:
        for target in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`]*`', '', line)):
            if re.match(r'[a-z]+://|mailto:', target):
                continue
            path, _, anchor = target.partition('#')
            if os.path.dirname(path) == '' and path in GENERATED:
                continue
            there = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
            if not os.path.exists(there):
                complain(f'{name}:{number}', f'dead link: {target}')
            elif anchor and there.endswith('.md') and anchor not in anchors_of(there):
                complain(f'{name}:{number}', f'dead link: {path} has no heading #{anchor}')


# --- running ------------------------------------------------------------------------------------------

WRAPPER = '''#!/usr/bin/env bash
# stands before tdmpc2: what a page trains for hours takes seconds here, and what goes on until q ends
case ${1:-} in
    train)
        if [ -n "${SHRINK:-}" ]; then
            case " $* " in *' checkpoint='*) ;; *) set -- "$@" $WIDTHS ;; esac
            case " $* " in
                *' data_dir='*) set -- "$@" $SHRINK steps=20 ;;
                *) set -- "$@" $SHRINK steps=1300 seed_steps=1050 ;;
            esac
            [ -z "${ANEW:-}" ] || set -- "$@" exp_name=anew-$$
        fi ;;
    eval) set -- "$@" eval_episodes=1 ;;
    top) set -- "$@" --once ;;
esac
exec "$TD_REAL/tdmpc2" "$@"
'''


def script_of(items, scratch):
    """One shell script of what runs of a page."""
    lines = ['set -euo pipefail', f'cd {shlex.quote(scratch)}/here']
    for index, item in enumerate(items):
        if not item.runs():
            continue
        item.log = f'{scratch}/{index}.log'
        lines += [f'echo {index} >{scratch}/now', f'exec >{item.log} 2>&1']
        lines.append(f'export SHRINK={shlex.quote(SHRUNK if "long" in item.marks else "")}')
        lines.append(f'export ANEW={"yes" if "each anew" in item.marks else ""}')
        if 'at the root' in item.marks:
            lines.append(f'cd {shlex.quote(ROOT)}')
        code = item.exit_code()
        if code:
            lines += ['set +e', item.code, 'code=$?', 'set -e',
                      f'[ $code = {code} ] || {{ echo "exit $code instead of {code}"; exit 97; }}']
        else:
            lines.append(item.code)
        lines.append(f'cd {shlex.quote(scratch)}/here')
    lines.append(f'echo done >{scratch}/now')
    return '\n'.join(lines) + '\n'


def run_page(items, limit):
    """Run a page's blocks in order; how many went well."""
    scratch = tempfile.mkdtemp(prefix='tdmpc2-docs-')
    try:
        os.makedirs(scratch + '/here')
        os.makedirs(scratch + '/bin')
        with open(scratch + '/bin/tdmpc2', 'w', encoding='utf-8') as file:
            file.write(WRAPPER)
        os.chmod(scratch + '/bin/tdmpc2', 0o755)
        with open(scratch + '/script', 'w', encoding='utf-8') as file:
            file.write(script_of(items, scratch))
        running = [item for item in items if item.runs()]
        if not running:
            return 0
        environment = dict(os.environ, PATH=f'{scratch}/bin:{os.environ["TD_REAL"]}:{os.environ["PATH"]}')
        child = subprocess.Popen(['bash', scratch + '/script'], stdin=subprocess.DEVNULL, start_new_session=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        why = ''
        try:
            child.wait(limit)
        except subprocess.TimeoutExpired:
            why = f'not done after {limit} s'
        try:    # its own session: what it left behind is of these blocks alone
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        with open(scratch + '/now', encoding='utf-8') as file:
            now = file.read().strip()
        if now != 'done':
            item = items[int(now)]
            with open(item.log, encoding='utf-8', errors='replace') as file:
                said = file.read().strip().split('\n')[-12:]
            complain(item.where, (why or f'ends with {child.returncode}') + ':\n' + '\n'.join('    | ' + line for line in said))
            running = running[:running.index(item)]
        return len(running) + check_said(items, running)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_said(items, running):
    """Blocks of text against what was run last before them."""
    good, last = 0, None
    for item in items:
        if item.kind in ('sh', 'setup'):
            last = item if item in running else None
        if 'says' not in item.marks or last is None:
            continue
        with open(last.log, encoding='utf-8', errors='replace') as file:
            said = file.read()
        missing = [line for line in item.code.split('\n') if line.strip() and not re.search(
            r'.*'.join(re.escape(part) for part in line.strip().split('...')), said)]
        for line in missing:
            complain(item.where, f'is not said: {line}\n' + '\n'.join('    | ' + text for text in said.split('\n')[-12:]))
        good += not missing
    return good


# --- all ------------------------------------------------------------------------------------------------

def main():
    folder, pages = os.path.realpath(sys.argv[1]), [os.path.realpath(page) for page in sys.argv[2:]]
    os.environ.update(TD_REAL=folder, TD_ROOT=ROOT, SMALL=SMALL, WIDTHS=WIDTHS)
    for name in ('TDMPC2_ASSETS', 'TDMPC2_PYTHON', 'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS'):
        os.environ.pop(name, None)
    programs, strings, looked, long, excused, blocks = Programs(folder), None, 0, 0, [], []
    for page in pages:
        items, prose = read_page(page)
        check_prose(page, programs, prose)
        check_links(page, prose)
        for item in items:
            if item.kind == 'sh':
                check_commands(item.where, programs, item.code, True)
            elif item.kind == '':
                check_commands(item.where, programs, item.code, False)
                if re.search(r'^(tdmpc2(-\w+)?|make) ', item.code, re.M):
                    complain(item.where, 'commands in a block that is not marked sh')
            elif item.kind in ('yaml', 'yml'):
                check_yaml(item.where, programs, item.code)
            if 'in the source' in item.marks:
                strings = strings or source_strings()
                for line in item.code.split('\n'):
                    for piece in line.split('...'):
                        if len(piece.strip()) > 2 and piece.strip() not in strings:
                            complain(item.where, f'no program says: {piece.strip()}')
            if item.kind == 'sh' and 'elsewhere' in item.marks:
                excused.append(f'{item.where}: not run here: {item.marks["elsewhere"]}')
            long += item.kind == 'sh' and 'long' in item.marks and not ALL
        looked += len(items)
        blocks.append(items)
    with ThreadPoolExecutor(3) as pool:    # pages mostly wait: for parts to start, for time to pass
        ran = sum(pool.map(lambda items: run_page(items, 900 if ALL else 100), blocks))
    if excused:
        print('\n'.join(excused))
    print(f'{len(pages)} pages, {looked} blocks looked at, {ran} run, {len(excused)} run elsewhere, {long} are for make test-docs')
    for line in bad:
        print(line)
    print(f'[  PASSED  ] {ran + len(pages)} test(s).' if not bad else f'[  FAILED  ] {len(bad)} test(s).')
    sys.exit(1 if bad else 0)


main()
