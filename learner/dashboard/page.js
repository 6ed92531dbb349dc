"use strict";
// What the learner tells once a second (events), how it went before (history.json) and what it has written
// (eval.csv, train.csv), drawn. When it is gone the last data stay, and the header says since when. Whatever
// comes from the run becomes text (textContent), never markup.

const KEPT = 2400;       // rows of history
const GONE_MS = 5000;    // without news the learner is said to be gone
const HEIGHT = 220, TIME = "time of the run";
const COLOURS = ["#3b82f6", "#e8590c", "#2f9e44", "#ae3ec9", "#d6336c", "#0c8599", "#b08900", "#868e96"];
const byId = id => document.getElementById(id);
const history = { time: [], rows: [] };
let charts = [], heardMs = 0, video = "", published = {}, task = "";

const number = value => value == null || Number.isNaN(value) ? "–"
    : Math.abs(value) >= 1e5 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toPrecision(4);

const clock = s => s == null ? "" : `${Math.floor(s / 3600)}:${String(Math.floor(s / 60) % 60).padStart(2, "0")}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
const ago = ms => ms == null ? "–" : ms < 90e3 ? `${(ms / 1e3).toFixed(1)} s` : clock(ms / 1e3);

function element(name, text, parent, attributes = {}) {
    const made = document.createElement(name);
    if (text !== "") made.textContent = text;
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (parent) parent.append(made);
    return made;
}

// --- charts -------------------------------------------------------------------

// One chart and the table behind it. `stacked`: areas, each upon those before it.
class Chart {
    constructor(title, unit, names, options = {}) {
        Object.assign(this, { title, unit, names, options, data: null });
        this.figure = element("figure", "", byId("charts"));
        element("figcaption", `${title} (${unit})`, this.figure);
        this.box = element("div", "", this.figure, { class: "plot", role: "img", "aria-label": `${title}: nothing yet` });
        const details = element("details", "", this.figure);
        element("summary", `${title} as a table`, details);
        this.table = element("table", "", details);
        details.addEventListener("toggle", () => this.fillTable());
        this.details = details;
        this.draw();
    }

    draw() {
        const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink");
        const line = getComputedStyle(document.documentElement).getPropertyValue("--line");
        const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
        const hours = { ...axis, space: 75, values: (plot, marks) => marks.map(clock), incrs: [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400, 172800, 604800] };
        const series = this.names.map((name, i) => ({
            label: name, stroke: COLOURS[i % COLOURS.length], width: 1.5, spanGaps: !this.options.stacked,
            dash: name.startsWith("published") ? [6, 4] : undefined,
            fill: this.options.stacked ? COLOURS[i % COLOURS.length] + "66" : undefined,
            value: (plot, value, s, at) => number(at == null || !this.data ? null : this.data[s][at]),
        }));
        if (this.plot) this.plot.destroy();
        this.plot = new uPlot({
            width: this.box.clientWidth || 320, height: HEIGHT,
            scales: { x: { time: false }, y: { range: (plot, low, high) => this.range(low, high) } },
            axes: [this.options.steps ? axis : hours, { ...axis, size: 60 }],
            bands: this.options.stacked ? this.names.slice(1).map((name, i) => ({ series: [i + 2, i + 1] })) : undefined, // each area down to the one below
            series: [{ label: this.options.steps || TIME, value: (plot, value) => this.options.steps ? number(value) : clock(value) }, ...series],
        }, this.drawn(), this.box);
    }

    // From 0 to the largest, but a short spike (a start, a replay that is found again) does not flatten the rest.
    range(low, high) {
        const values = this.drawn().slice(1).flat().filter(Number.isFinite).sort((a, b) => a - b);
        const most = values[Math.floor(values.length * 0.95)] ?? 0;
        if (values.length > 40 && most > 0 && high > 4 * most) high = 1.5 * most;
        return [Math.min(0, low ?? 0), Math.max(this.options.top ?? 0, (high ?? 1) > 0 ? (high ?? 1) * 1.05 : 1)];
    }

    drawn() {
        if (!this.data) return [[], ...this.names.map(() => [])];
        if (!this.options.stacked) return this.data;
        const sums = this.data[0].map(() => 0);
        return [this.data[0], ...this.data.slice(1).map(values => values.map((value, i) => value == null ? null : sums[i] += value))];
    }

    show(names, data) {
        const renamed = names.join() !== this.names.join();
        this.names = names;
        this.data = data;
        if (renamed) this.draw(); else this.plot.setData(this.drawn());
        const newest = names.map((name, i) => `${name} ${number(data[i + 1].findLast(value => value != null))}`);
        this.box.setAttribute("aria-label", `${this.title}, newest: ${newest.join(", ")}`);
        this.fillTable();
    }

    fillTable() {
        if (!this.details.open || !this.data) return;
        const head = element("tr", "");
        for (const name of [this.options.steps || TIME, ...this.names]) element("th", name, head, { scope: "col" });
        const rows = [head];
        for (let i = this.data[0].length - 1; i >= 0 && rows.length <= 20; i--) {
            const row = element("tr", "");
            this.data.forEach((values, s) => element("td", s || this.options.steps ? number(values[i]) : clock(values[i]), row));
            rows.push(row);
        }
        this.table.replaceChildren(...rows);
    }
}

// [title, unit, {name: metrics => value}, options]
const LIVE = [
    ["Rates", "per second", { "environment steps": m => m.env_steps_per_s, updates: m => m.updates_per_s }],
    ["Update ratio", "updates per agent step", { actual: m => m.ratio, wanted: m => m.target_ratio }],
    ["Lag of parameters", "updates", { lag: m => m.parameter_lag }],
    ["Limiter", "updates due", { due: m => m.limiter_cursor, slack: m => m.limiter_slack }],
    ["The learner waits for", "share of time", { "agent steps (limiter)": m => m.wait_steps_ms_per_s / 1e3, slices: m => m.wait_samples_ms_per_s / 1e3, checkpoints: m => m.wait_checkpoint_ms_per_s / 1e3 }, { stacked: true, top: 1 }],
    ["Replay fill", "agent steps", { "may be drawn": m => m.replay_steps }, { stacked: true }],
    ["Episodes in replay", "episodes", { "may be drawn": m => m.replay_episodes, "evicted or too short": m => m.replay_retired }, { stacked: true }],
];
let liveCharts, returns, training, success, losses;

// --- live -----------------------------------------------------------------------

function remember(time, metrics) {
    if (history.time.length && time <= history.time.at(-1)) return;
    history.time.push(time);
    history.rows.push(metrics);
    if (history.time.length > KEPT) { history.time.shift(); history.rows.shift(); }
}

function showLive() {
    liveCharts.forEach((chart, i) => {
        const lines = Object.values(LIVE[i][2]);
        chart.show(chart.names, [history.time, ...lines.map(line => history.rows.map(row => { const v = line(row); return Number.isFinite(v) ? v : null; }))]);
    });
}

// Another life of the learner, or news after a silence: what lies between is in its history.
async function readHistory() {
    const told = await (await fetch("history.json")).json();
    history.time.length = history.rows.length = 0;
    for (const [time, ...values] of told.rows)
        remember(time, Object.fromEntries(values.map((value, i) => [told.columns[i + 1], value])));
    if (told.rows.length) showLive();
}

let life = "";
function tell(state) {
    const stats = state.stats;
    if (!stats) return;
    const m = stats.metrics;
    if (stats.process !== life || state.run_s > (history.time.at(-1) ?? state.run_s) + 10) readHistory().catch(() => {});
    life = stats.process;
    remember(state.run_s, m);
    showLive();
    tellTiles(m);
    tellParts(state);
    tellMetrics(m);
    byId("trouble").textContent = m.bottleneck || "";
    document.documentElement.dataset.told = stats.time_ms; // for tests: what is shown is of this moment
}

function tellTiles(m) {
    const hours = m.time_left == null ? "–" : m.time_left > 5400 ? `${(m.time_left / 3600).toFixed(1)} h` : `${Math.ceil(m.time_left / 60)} min`;
    const tiles = {
        phase: m.phase, "agent steps": `${number(m.agent_steps)} of ${number(m.target_steps)}`, updates: number(m.parameter_version), "time left": hours,
        "return (training)": number(m.episode_return), "return (evaluation)": number(m.eval_return), ratio: `${number(m.ratio)} of ${number(m.target_ratio)}`,
        replay: m.replay_capacity ? `${number(m.replay_steps)} of ${number(m.replay_capacity)}` : null,
        actors: number(m.actors_live), "waiting for": m.waiting || "nothing",
    };
    byId("tiles").replaceChildren(...Object.entries(tiles).map(([name, value]) => {
        const tile = element("div", "");
        element("dt", name, tile);
        element("dd", value ?? "–", tile, { "data-name": name });
        return tile;
    }));
}

function tellParts(state) {
    const learner = { role: "learner", id: state.stats.id, health: "live", silent_ms: state.age_ms, steps: state.stats.metrics.agent_steps,
        version: state.stats.metrics.parameter_version, waiting: state.stats.metrics.waiting, joined_ms: state.stats.uptime_s * 1e3, local: true };
    byId("parts").tBodies[0].replaceChildren(...[learner, ...state.parts].map(part => {
        const row = element("tr", "", null, { "data-part": `${part.role} ${part.id}`, "data-process": part.process || state.stats.process });
        element("th", `${part.role} ${part.id}${part.local ? "" : " (remote)"}`, row, { scope: "row" });
        element("td", part.health, row, { class: part.health });
        element("td", part.waiting === undefined ? "–" : part.waiting || "nothing", row);
        element("td", ago(part.silent_ms), row);
        element("td", ago(part.joined_ms), row);
        element("td", number(part.steps), row);
        element("td", number(part.version), row);
        return row;
    }));
    byId("others").textContent = state.others ? `and ${state.others} more` : "";
}

function tellMetrics(m) {
    if (!byId("metrics").parentElement.open) return;
    byId("metrics").tBodies[0].replaceChildren(...Object.entries(m).map(([name, value]) => {
        const row = element("tr", "");
        element("th", name, row, { scope: "row" });
        element("td", typeof value === "object" ? JSON.stringify(value) : typeof value === "number" ? String(value) : value, row, { "data-metric": name });
        return row;
    }));
}

// --- what was written --------------------------------------------------------------

async function table(path) {
    const lines = (await (await fetch(path)).text()).trim().split("\n").map(line => line.split(","));
    const columns = {};
    lines[0].forEach((name, i) => columns[name] = lines.slice(1).map(line => line[i] === "" || line[i] == null ? null : Number(line[i])));
    return columns;
}

function showCurves(chart, evaluated, what, scale = 1) {
    const found = Object.keys(evaluated).filter(name => (name === what || name.startsWith(what + "+")) && evaluated[name].some(v => v != null));
    const names = found.map(name => name === what ? found.length > 1 ? "mean of tasks" : "this run" : name.slice(what.length + 1));
    chart.figure.hidden = found.length === 0;
    if (!found.length) return;
    const lines = found.map(name => [evaluated.env_step, evaluated[name].map(v => v == null ? null : v * scale)]);
    const curve = what === "episode_reward" && published[task];
    if (curve) {
        const end = Math.max(2 * evaluated.env_step.at(-1), curve.every);
        const keep = curve.values.filter((v, i) => i * curve.every <= end);
        names.push("published, mean of its seeds");
        lines.push([keep.map((v, i) => i * curve.every), keep]);
    }
    chart.show(names, uPlot.join(lines.map(line => [line[0], line[1]])));
}

async function read() {
    const evaluated = await table("eval.csv"), trained = await table("train.csv");
    if (evaluated.env_step) {
        showCurves(returns, evaluated, "episode_reward");
        showCurves(success, evaluated, "episode_success");
    }
    if (trained.step && trained.step.length) {
        training.show(training.names, [trained.step, trained.episode_reward]);
        const names = Object.keys(trained).filter(name => name.endsWith("_loss") && trained[name].some(v => v));
        if (names.length) losses.show(names.map(name => name.replace("_loss", "")), [trained.step, ...names.map(name => trained[name])]);
    }
    const newest = evaluated.step ? String(evaluated.step.at(-1)) : "";
    if (options.save_video === "true" && newest !== "" && newest !== "undefined" && newest !== video) {
        video = newest;
        showVideo();
    }
}

// The newest there is; a learner without ffmpeg makes none.
async function showVideo() {
    const there = await fetch("video.mp4", { headers: { Range: "bytes=0-0" } });
    if (!there.ok) return;
    byId("video").hidden = false;
    byId("video").querySelector("video").src = `video.mp4?step=${encodeURIComponent(video)}#t=0.01`;
}

const options = {};
async function begin() {
    const text = await (await fetch("config.yaml")).text();
    byId("options").textContent = text;
    for (const [, key, value] of text.matchAll(/^([a-z_]+): *"?([^"#\n]*?)"? *$/gm)) options[key] = value;
    task = options.tasks ? "" : options.task || "";
    byId("task").textContent = options.tasks || task;
    document.title = `${task || "tasks"} – tdmpc2`;
    for (const line of (await (await fetch("published.csv")).text()).trim().split("\n").slice(1)) {
        const [name, every, ...values] = line.split(",");
        published[name] = { every: Number(every), values: values.map(Number) };
    }
    returns = new Chart("Return of evaluations", "reward", ["this run"], { steps: "environment steps" });
    success = new Chart("Success of evaluations", "share", ["this run"], { steps: "environment steps" });
    training = new Chart("Return of training episodes", "reward", ["return"], { steps: "agent steps" });
    losses = new Chart("Losses", "1", ["total"], { steps: "agent steps" });
    liveCharts = LIVE.map(([title, unit, lines, more]) => new Chart(title, unit, Object.keys(lines), more));
    charts = [returns, success, training, losses, ...liveCharts];
    success.figure.hidden = true;
    listen();
    readAgain();
    setInterval(watch, 500);
    addEventListener("resize", () => charts.forEach(chart => chart.box.clientWidth && chart.plot.setSize({ width: chart.box.clientWidth, height: HEIGHT })));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(chart => chart.draw()));
}

async function readAgain() {
    try {
        await read();
    } catch (error) { /* the learner is away: the header says so */ }
    setTimeout(readAgain, 10000);
}

let source;
function listen() {
    source = new EventSource("events");
    source.onmessage = event => {
        const state = JSON.parse(event.data);
        heardMs = Date.now() - state.age_ms;
        tell(state);
        watch();
    };
}

// The line at the top, and whose health can be known. A source that gave up (an answer that was no stream) is made anew.
let said = "", closedMs = 0;
function watch() {
    const silent = Date.now() - heardMs, gone = heardMs > 0 && silent > GONE_MS;
    const words = !heardMs ? "connecting" : gone ? `nothing heard of the learner since ${new Date(heardMs).toLocaleTimeString()}: this is how it was then` : "live";
    if (words !== said) {
        byId("link").textContent = said = words;
        byId("link").className = gone ? "gone" : heardMs ? "live" : "";
        document.body.classList.toggle("stale", gone);
    }
    if (source.readyState !== EventSource.CLOSED) closedMs = 0;
    else if (!closedMs) closedMs = Date.now();
    else if (Date.now() - closedMs > 3000) { closedMs = 0; listen(); }
}

begin();
