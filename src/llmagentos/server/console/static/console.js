// What the server cannot know: the browser's time zone, its clipboard, which details are open, and
// whether the stream is connected. Everything else is HTML from the server.
"use strict";

const root = document.documentElement;
const language = root.lang || "en";

// --- times: <time datetime="..." data-show="age|full|clock|day|...">, and <span data-since="epoch seconds"> ----------

const full = new Intl.DateTimeFormat(language, {
  year: "numeric", month: "short", day: "numeric",
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const offset = new Intl.DateTimeFormat("en", { timeZoneName: "short" });
const day = new Intl.DateTimeFormat(language, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const clock = new Intl.DateTimeFormat(language, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const minute = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(language, { month: "short", day: "numeric" });
const second = new Intl.DateTimeFormat(language, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "narrow" });

function age(date) {
  const seconds = (Date.now() - date) / 1000;
  if (seconds < 5) return relative.format(0, "second");
  if (seconds < 60) return relative.format(-Math.floor(seconds / 5) * 5, "second");
  if (seconds < 3600) return relative.format(-Math.floor(seconds / 60), "minute");
  if (seconds < 86400) return relative.format(-Math.floor(seconds / 3600), "hour");
  return day.format(date);
}

// The same form as words.duration() on the server, without fractions: it ticks.
function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${whole % 60}s`;
  return `${Math.floor(whole / 3600)}h ${Math.floor((whole % 3600) / 60)}m`;
}

// The zone after the time: Chinese formats put it in the middle.
function whole(date) {
  const zone = offset.formatToParts(date).find((part) => part.type === "timeZoneName");
  return `${full.format(date)} ${zone.value}`;
}

const formats = { clock, day, minute, date, second };
const shown = { age, full: whole };
for (const [name, format] of Object.entries(formats)) shown[name] = (at) => format.format(at);

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function showTimes(scope) {
  for (const element of scope.querySelectorAll("time[data-show]")) {
    const date = new Date(element.dateTime);
    write(element, shown[element.dataset.show](date));
    if (!element.title) element.title = whole(date);
  }
  for (const element of scope.querySelectorAll("[data-since]"))
    write(element, duration(Date.now() / 1000 - Number(element.dataset.since)));
  for (const element of scope.querySelectorAll("[data-zone]"))
    write(element, Intl.DateTimeFormat().resolvedOptions().timeZone);
}

// --- live parts ---------------------------------------------------------------------------------------------------

function connection(state) {
  const element = document.getElementById("connection");
  if (element && element.dataset.state !== "done") element.dataset.state = state;
}

// What a screen reader is told when it changes: the state, and the answer.
let said = document.querySelector("[data-announce]")?.textContent;

function announce() {
  const now = document.querySelector("[data-announce]")?.textContent;
  if (now && now !== said) write(document.getElementById("announcer"), now);
  said = now;
}

// The answer that is being written. A page that was rendered before or after it has no place for it: `call` says.
let draft = { call: 0, text: "" };

function showDraft(piece) {
  const element = document.getElementById(`text-${draft.call}`);
  if (!element || !draft.text) return;
  if (piece && element.firstChild) element.firstChild.appendData(piece);
  else write(element, draft.text);
}

document.addEventListener("htmx:sseBeforeMessage", (event) => {
  if (event.detail.type !== "text") return;
  event.preventDefault(); // it is not HTML
  const { call, text } = JSON.parse(event.detail.data);
  draft = call ? { call, text } : { call: draft.call, text: draft.text + text };
  showDraft(call ? null : text);
});

let open = new Set();
document.addEventListener("htmx:beforeSwap", () => {
  open = new Set([...document.querySelectorAll("details[id][open]")].map((element) => element.id));
});
document.addEventListener("htmx:afterSwap", (event) => {
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  showDraft();
  showTimes(event.target.parentElement || document);
  announce();
});
document.addEventListener("htmx:sseOpen", () => connection("open"));
document.addEventListener("htmx:sseError", () => connection("lost"));
document.addEventListener("htmx:sseClose", (event) => {
  if (event.detail.type === "message") connection("done");
});

// --- actions ------------------------------------------------------------------------------------------------------

function remember(name, value) {
  document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=lax`;
}

function setTheme(theme) {
  root.dataset.theme = theme;
  remember("llmagentos_theme", theme);
  for (const button of document.querySelectorAll("[data-action=theme]"))
    button.setAttribute("aria-pressed", String(theme === "dark"));
}

const dark = () =>
  root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

const actions = {
  theme: () => setTheme(dark() ? "light" : "dark"),
  menu: (button) => button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true")),
  copy: async (button) => {
    const text = button.parentElement.querySelector("code").textContent;
    const before = button.textContent;
    await navigator.clipboard.writeText(text);
    write(button, button.dataset.done);
    setTimeout(() => write(button, before), 1500);
  },
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (button) actions[button.dataset.action](button);
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape")
    document.querySelector(".menu-button[aria-expanded=true]")?.click();
  const sends = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (sends && event.target.matches("textarea")) event.target.form.requestSubmit();
});

for (const button of document.querySelectorAll("[data-action=theme]"))
  button.setAttribute("aria-pressed", String(dark()));
document.querySelector("form[data-submit-now]")?.requestSubmit();
showTimes(document);
setInterval(() => showTimes(document), 1000);
