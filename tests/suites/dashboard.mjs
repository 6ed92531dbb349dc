// What a person does with the dashboard, in a real browser. Prints ok or FAIL lines; exit code 1 when one failed.
import { execFileSync } from "node:child_process";
const { chromium } = await import(process.env.PLAYWRIGHT);
const { ADDRESS, RUN, TOOL, PICTURES, CHROMIUM } = process.env;
const ACTOR = Number(process.env.ACTOR), TRAIN = Number(process.env.TRAIN);

let good = 0, bad = 0;
async function check(what, test) {
    try {
        await test();
        good++;
        console.log(`ok    ${what}`);
    } catch (error) {
        bad++;
        console.log(`FAIL  ${what}: ${error.message.split("\n").slice(0, 4).join(" | ")}`);
    }
}
function is(found, wanted, what) {
    if (found !== wanted) throw new Error(`${what}: ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
}
function holds(condition, what) {
    if (!condition) throw new Error(what);
}
// The page's own policy forbids what waitForFunction does.
async function until(page, predicate, ms) {
    const end = Date.now() + ms;
    while (!await page.evaluate(predicate)) {
        holds(Date.now() < end, `not within ${ms} ms: ${predicate}`);
        await sleep(50);
    }
}
const sleep = ms => new Promise(done => setTimeout(done, ms));
const stats = () => JSON.parse(execFileSync(TOOL, ["stats", RUN, "--json"])).parts.find(part => part.role === "learner");

const browser = await chromium.launch({ executablePath: CHROMIUM, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
const troubles = [], foreign = [];
async function open(options) {
    const page = await (await browser.newContext(options)).newPage();
    page.on("console", message => { if (["error", "warning"].includes(message.type())) troubles.push(message.text()); });
    page.on("pageerror", error => troubles.push(error.message));
    page.on("request", request => { if (!request.url().startsWith(ADDRESS) && !/^(data|blob):/.test(request.url())) foreign.push(request.url()); });
    await page.goto(ADDRESS);
    await until(page, () => document.getElementById("link").textContent === "live" && document.documentElement.dataset.told, 15000);
    return page;
}
const picture = (page, name, more = {}) => PICTURES ? page.screenshot({ path: `${PICTURES}/${name}.png`, ...more }) : null;
const text = (page, selector) => page.locator(selector).first().textContent();
const part = (page, name) => page.locator(`[data-part="${name}"]`);
// The line of a chart as its table tells it, newest first.
async function table(page, title) {
    const figure = page.locator("figure", { has: page.locator("figcaption", { hasText: title }) });
    return figure.locator("details tr").evaluateAll(rows => rows.map(row => [...row.children].map(cell => cell.textContent)));
}

const page = await open({ viewport: { width: 1280, height: 900 } });

await check("charts are drawn, with something in them", async () => {
    await until(page, () => document.querySelectorAll("#charts figure:not([hidden]) canvas").length >= 10, 15000);
    await sleep(3500);
    const inked = await page.locator("#charts figure:not([hidden])").evaluateAll(figures => figures.map(figure => {
        const canvas = figure.querySelector("canvas"), pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const colours = new Set();
        for (let i = 0; i < pixels.length; i += 4)
            if (pixels[i + 3] > 200 && Math.max(pixels[i], pixels[i + 1], pixels[i + 2]) - Math.min(pixels[i], pixels[i + 1], pixels[i + 2]) > 60)
                colours.add(`${pixels[i] >> 5},${pixels[i + 1] >> 5},${pixels[i + 2] >> 5}`);
        return [figure.querySelector("figcaption").textContent, colours.size];
    }));
    for (const [title, colours] of inked) holds(colours > 0, `${title} is empty`);
    holds(inked.length >= 10, `${inked.length} charts`);
});

await check("the published curve stands beside this run's", async () => {
    const label = await page.locator("figure", { hasText: "Return of evaluations" }).locator(".plot").getAttribute("aria-label");
    holds(/this run [\d.]+/.test(label) && /published, mean of its seeds [\d.]+/.test(label), label);
});

await check("numbers are the stats socket's", async () => {
    await page.locator("summary", { hasText: "All metrics" }).click();
    await page.waitForSelector('[data-metric="updates"]');
    const shown = () => page.evaluate(() => ({ told: Number(document.documentElement.dataset.told),
        metrics: Object.fromEntries([...document.querySelectorAll("[data-metric]")].map(cell => [cell.dataset.metric, cell.textContent])) }));
    const before = stats();
    let now;
    do { await sleep(200); now = await shown(); } while (now.told <= before.time_ms);
    const after = stats();
    let equal = 0, between = 0;
    for (const [name, low] of Object.entries(before.metrics)) {
        const high = after.metrics[name], here = now.metrics[name];
        holds(here !== undefined, `${name} is not shown`);
        if (/^(limiter_cursor|parameter_lag|ratio|progress|resident_bytes|streams_live)$|_per_s$/.test(name)) continue; // may go and come back
        if (typeof low === "number" && low === high) { is(Number(here), low, name); equal++; }
        else if (["updates", "agent_steps", "env_steps", "slices", "received_bytes", "sent_bytes"].includes(name)) {
            holds(low <= Number(here) && Number(here) <= high, `${name}: ${here} is not between ${low} and ${high}`);
            between++;
        }
    }
    holds(equal >= 8 && between >= 4, `${equal} equal, ${between} between`);
    is(await text(page, '[data-name="phase"]'), after.metrics.phase, "phase");
    await page.locator("summary", { hasText: "All metrics" }).click();
});

await check("curves are those of eval.csv", async () => {
    await page.locator("summary", { hasText: "Return of evaluations as a table" }).click();
    await sleep(300);
    const rows = (await table(page, "Return of evaluations")).slice(1).filter(row => row[1] !== "–");
    const lines = execFileSync("cat", [`${RUN}/eval.csv`]).toString().trim().split("\n").slice(1).map(line => line.split(","));
    holds(rows.length >= 2, `${rows.length} rows`);
    for (const [step, reward] of rows) {
        const line = lines.find(fields => Number(fields[5]).toLocaleString("en") === step);
        holds(line, `no step ${step}`);
        holds(Math.abs(Number(reward.replaceAll(",", "")) - Number(line[1])) <= 0.001 * Math.abs(line[1]) + 1e-9, `${reward} is not ${line[1]}`);
    }
});

await check("the latest evaluation plays", async () => {
    await until(page, () => !document.getElementById("video").hidden, 30000);
    const length = await page.locator("video").evaluate(async video => {
        await video.play();
        await new Promise(done => setTimeout(done, 1200));
        video.currentTime = video.duration - 1; // a range of its own
        await new Promise(done => video.addEventListener("seeked", done, { once: true }));
        return [video.videoWidth, video.duration, video.currentTime];
    });
    holds(length[0] > 100 && length[1] > 5 && length[2] > length[1] - 2, JSON.stringify(length));
});

await check("options are text, whatever they look like", async () => {
    await page.locator("summary", { hasText: "Options" }).click();
    holds((await text(page, "#options")).includes("<img src=x"), "the name of the experiment is not shown");
    is(await page.locator("#options *").count(), 0, "elements in the options");
    holds(!(await page.title()).includes("broken"), "a script of the options ran");
});
await picture(page, "dashboard", { clip: { x: 0, y: 0, width: 1280, height: 1500 }, fullPage: true });

await check("everything can be reached by keyboard, in order, and is seen to be", async () => {
    const keys = await open({ viewport: { width: 1280, height: 900 } });
    await until(keys, () => !document.getElementById("video").hidden && document.querySelectorAll("#charts figure:not([hidden]) canvas").length >= 10, 15000);
    const reached = [];
    for (let i = 0; i < 60; i++) {
        await keys.keyboard.press("Tab");
        const at = await keys.evaluate(() => {
            const element = document.activeElement;
            return element === document.body ? null : { name: element.tagName === "VIDEO" ? "VIDEO" : element.textContent.slice(0, 40), outline: getComputedStyle(element).outlineStyle,
                tag: element.tagName };
        });
        if (!at) break;
        reached.push(at);
    }
    is(reached[0].name, "To the charts", "the first stop");
    const summaries = await keys.locator("figure:not([hidden]) summary, main > details > summary").count();
    is(reached.filter(at => at.tag === "SUMMARY").length, summaries, "summaries reached");
    holds(reached.some(at => at.tag === "VIDEO"), "the video is not reached");
    for (const at of reached.filter(one => one.tag !== "VIDEO")) holds(at.outline !== "none", `${at.name} has no outline`);
    // opened by Enter
    await keys.locator("summary", { hasText: "Rates as a table" }).focus();
    await keys.keyboard.press("Enter");
    await sleep(300);
    holds((await table(keys, "Rates")).length > 2, "Enter does not open the table");
    await keys.context().close();
});

await check("a screen reader finds names, a language, headings and live regions", async () => {
    const found = await page.evaluate(() => ({
        language: document.documentElement.lang,
        unnamed: [...document.querySelectorAll("[role=img]")].filter(element => !element.getAttribute("aria-label")).length,
        nothing: [...document.querySelectorAll("figure:not([hidden]) [role=img]")].filter(element => /nothing yet/.test(element.getAttribute("aria-label"))).length,
        headings: document.querySelectorAll("h1, h2").length, live: document.querySelectorAll("[aria-live]").length,
        main: document.querySelectorAll("main").length, heads: document.querySelectorAll("#parts th[scope]").length,
    }));
    is(found.language, "en", "language");
    is(found.unnamed, 0, "charts without a name");
    is(found.nothing, 0, "charts that tell nothing");
    holds(found.headings >= 3 && found.live >= 2 && found.main === 1 && found.heads >= 8, JSON.stringify(found));
});

const contrast = page => page.evaluate(() => {
    const light = colour => colour.match(/\d+/g).slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const ground = light(getComputedStyle(document.body).backgroundColor);
    return Math.min(...[...document.querySelectorAll("p, dt, dd, th, td, summary, figcaption, h1, h2, .u-legend th, .u-legend td")].filter(element => element.textContent && element.offsetParent).map(element => {
        const ink = light(getComputedStyle(element).color);
        return (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
    }));
});
await check("light: contrast of text", async () => {
    const worst = await contrast(page);
    holds(worst >= 4.5, `${worst.toFixed(2)} to 1`);
});

await check("dark: contrast of text, dark ground, and it follows a change", async () => {
    const dark = await open({ viewport: { width: 1280, height: 900 }, colorScheme: "dark" });
    holds(await dark.evaluate(() => getComputedStyle(document.body).backgroundColor) === "rgb(22, 24, 28)", "the ground is not dark");
    const worst = await contrast(dark);
    holds(worst >= 4.5, `${worst.toFixed(2)} to 1`);
    await sleep(1500);
    await picture(dark, "dashboard-dark");
    await dark.emulateMedia({ colorScheme: "light" });
    holds(await dark.evaluate(() => getComputedStyle(document.body).backgroundColor) === "rgb(255, 255, 255)", "it does not follow");
    await dark.context().close();
});

await check("a phone: nothing wider than the screen, charts fill it", async () => {
    const phone = await open({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
    await sleep(1500);
    const widths = await phone.evaluate(() => ({ page: document.documentElement.scrollWidth, screen: innerWidth,
        charts: [...document.querySelectorAll("figure:not([hidden]) .u-wrap")].map(element => element.getBoundingClientRect().width) }));
    holds(widths.page <= widths.screen, `${widths.page} wide on ${widths.screen}`);
    holds(widths.charts.length >= 10 && widths.charts.every(width => width > 300 && width <= 390), JSON.stringify(widths.charts));
    await picture(phone, "dashboard-phone");
    await phone.context().close();
});

await check("a killed actor shows within 5 s", async () => {
    await part(page, "actor 1").waitFor({ timeout: 10000 });
    is(await part(page, "actor 1").locator("td").first().textContent(), "live", "before");
    const begin = Date.now();
    process.kill(ACTOR, "SIGKILL");
    await until(page, () => document.querySelector('[data-part="actor 1"] td')?.textContent !== "live", 8000);
    const took = Date.now() - begin;
    holds(took < 5000, `after ${took} ms`);
    console.log(`      after ${took} ms`);
});

await check("no errors in the console, no other origin", async () => {
    holds(troubles.length === 0, troubles.slice(0, 3).join(" | "));
    is(foreign.length, 0, `asked elsewhere: ${foreign[0]}`);
});

await check("six tabs are all live, and the learner answers still", async () => {
    const tabs = [];
    for (let i = 0; i < 5; i++) tabs.push(await open({}));
    const told = await Promise.all(tabs.map(tab => tab.evaluate(() => document.documentElement.dataset.told)));
    await sleep(4500);
    for (let i = 0; i < tabs.length; i++) {
        holds(await tabs[i].evaluate(() => document.documentElement.dataset.told) > told[i], `tab ${i} stands still`);
        is(await text(tabs[i], "#link"), "live", `tab ${i}`);
        await tabs[i].context().close();
    }
});

await check("when the learner is gone the page says so and stays readable; when it is back it goes on", async () => {
    const { pid, process: before } = stats();
    const steps = await text(page, '[data-name="agent steps"]');
    process.kill(pid, "SIGSTOP"); // hung, then gone
    await until(page, () => /nothing heard of the learner since/.test(document.getElementById("link").textContent), 9000);
    process.kill(TRAIN, "SIGSTOP"); // else it would start the learner again at once
    process.kill(pid, "SIGKILL");
    await sleep(3000);
    holds(/nothing heard of the learner since \d/.test(await text(page, "#link")), "it does not say so");
    holds((await text(page, '[data-name="agent steps"]')).length >= steps.length, "numbers are gone");
    holds((await text(page, ".plot")).length > 0, "charts are gone");
    await page.locator("summary", { hasText: "Limiter as a table" }).click();
    await sleep(300);
    holds((await table(page, "Limiter")).length > 2, "a table cannot be opened any more");
    await page.evaluate(() => scrollTo(0, 0));
    await picture(page, "dashboard-gone");
    is(await page.locator("canvas").count() >= 10, true, "charts");
    process.kill(TRAIN, "SIGCONT");
    await until(page, () => document.getElementById("link").textContent === "live", 40000);
    holds(before !== stats().process, "the same learner");
});

await browser.close();
console.log(`${good} passed, ${bad} failed`);
process.exit(bad ? 1 : 0);
