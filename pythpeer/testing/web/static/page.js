// The page of `pythpeer serve`. Texts of users are inserted as text, never as markup: the page's
// policy (trusted types) forbids anything else.

const MAX_MESSAGES = 1000; // messages on the page
const BOT_TIMEOUT = 5; // seconds without a request after which the bot counts as silent

const $ = (id) => document.getElementById(id);

let hello = null; // the section of this name: what does not change while the server runs
let skew = 0; // the browser's clock minus the services' clock, in seconds
let lastMessage = 0; // the id of the newest message on the page
let lastNotice = 0; // how many notices the page has received
let waiting = []; // notices that are not yet among the messages
let lastRequest = null; // when the newest request was received, by the services' clock
let leftAt = null; // when a bot closed its last connection, by the same clock

// -- making elements --

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const words = (tag, className, text) => make(tag, { className, textContent: text, dir: "auto" });
const clock = (date) => make("time", { textContent: date.slice(11), title: `${date}, by the service's clock`, dateTime: date });

const body = (head, text) => make("div", { className: "body" }, make("div", { className: "head" }, ...head), words("span", "words", text));
const state = (text) => make("span", { className: "state", textContent: text });

function hue(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 65521;
  return sum % 8;
}

function avatar(name) {
  return make("span", { className: "avatar", textContent: [...name.trim()][0] ?? "?", ariaHidden: "true", data: { hue: hue(name) } });
}

function list(id, none, items) {
  $(id).replaceChildren(...items);
  $(none).hidden = items.length > 0;
}

// -- form fields, kept over a reload --

const memory = {
  get: (name) => { try { return sessionStorage.getItem(name); } catch { return null; } },
  set: (name, value) => { try { sessionStorage.setItem(name, value); } catch { /* storage is disabled */ } },
};

function remember(form) {
  for (const field of form.elements) {
    if (!field.name) continue;
    const key = `${form.id}.${field.name}`;
    const value = memory.get(key);
    if (value !== null) field.type === "checkbox" ? (field.checked = value === "yes") : (field.value = value);
    field.addEventListener("input", () => memory.set(key, field.type === "checkbox" ? (field.checked ? "yes" : "no") : field.value));
  }
}

// -- actions --

let alertTimer = 0;

function showError(text) {
  $("alert").textContent = text;
  $("alert").hidden = false;
  clearTimeout(alertTimer);
  alertTimer = setTimeout(() => { $("alert").hidden = true; }, 8000);
}

async function post(action, body = {}) {
  try {
    const response = await fetch(`/api/${action}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    if (response.ok) { $("alert").hidden = true; return true; }
    showError((await response.json()).error);
  } catch {
    showError("Nothing was changed: pythpeer serve does not respond.");
  }
  return false;
}

// -- the chat --

const scroller = $("scroller");
const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40;
const toEnd = () => { scroller.scrollTop = scroller.scrollHeight; };
scroller.addEventListener("scroll", () => { if (atEnd()) $("newest").hidden = true; });
$("newest").addEventListener("click", () => { toEnd(); $("text").focus(); });
new ResizeObserver(() => { if ($("newest").hidden) toEnd(); }).observe(scroller);

// The services compare names without case.
const sameName = (one, other) => one.toLowerCase() === other.toLowerCase();

function messageElement(line, before) {
  const own = sameName(line.sender, $("say").elements.sender.value.trim());
  const chips = [];
  if (line.bot) chips.push(make("span", { className: "chip", textContent: "bot" }));
  if (line.to) chips.push(words("span", "chip private", `private to ${line.to}`));
  const classes = ["message"];
  if (own) classes.push("own");
  if (sameName(line.sender, hello.bot)) classes.push("account");
  if (line.to) classes.push("private");
  const same = ["sender", "to", "bot"].every((name) => before?.[name] === line[name]);
  if (same && before.date.slice(0, 16) === line.date.slice(0, 16)) classes.push("more");
  return make("li", { className: classes.join(" "), data: { hue: hue(line.sender), id: line.id } },
    avatar(line.sender),
    make("p", { className: "meta" }, words("span", "sender", line.sender), " ", ...chips, " ", clock(line.date)),
    words("p", "text", line.text));
}

let before = null; // the message above the next one, unless a notice is between

function showChat(lines) {
  const log = $("log");
  const follow = atEnd() || lastMessage === 0;
  const fragment = document.createDocumentFragment();
  const notices = waiting;
  waiting = [];
  for (const line of lines) {
    if (line.id <= lastMessage) continue;
    while (notices.length && notices[0].date < line.date) { fragment.append(noticeElement(notices.shift())); before = null; }
    fragment.append(messageElement(line, before));
    before = line;
    lastMessage = line.id;
  }
  for (const notice of notices) { fragment.append(noticeElement(notice)); before = null; }
  if (!fragment.childNodes.length) return;
  log.append(fragment);
  while (log.childElementCount > MAX_MESSAGES) log.firstElementChild.remove();
  $("empty").hidden = true;
  if (follow) toEnd();
  else $("newest").hidden = false;
}

function showLeftOut(count) {
  const text = count === 1 ? "1 message is not shown here" : `${count} messages are not shown here`;
  $("log").append(make("li", { className: "aside left-out", textContent: text }));
  before = null;
}

const noticeElement = (notice) => words("li", "aside", `${KINDS[notice.kind].title}: ${notice.endpoint}: ${notice.text}`);

const say = $("say");
remember(say);

function count() {
  const field = $("text");
  const left = (hello?.max_text ?? 250) - [...field.value].length;
  const excess = `${-left} character${left === -1 ? "" : "s"} too many`;
  $("left").textContent = left < 0 ? excess : left < 50 ? `${left} left` : "";
  $("left").classList.toggle("over", left < 0);
  $("send").disabled = left < 0;
  field.ariaInvalid = `${left < 0}`;
  field.setCustomValidity(field.value && !field.value.trim() ? "Write more than blanks." : "");
}

$("text").addEventListener("input", count);
$("try").addEventListener("click", () => { $("text").value = "!ping"; say.requestSubmit(); });
say.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { sender, to, bot, text } = say.elements;
  const message = text.value;
  text.value = "";
  text.focus();
  toEnd();
  if (!await post("say", { sender: sender.value, to: to.value && hello.bot, bot: bot.checked, text: message }) && !text.value) text.value = message;
  memory.set("say.text", text.value);
  count();
});

// -- the bot --

function showPresence() {
  const seconds = lastRequest === null ? Infinity : Date.now() / 1000 - lastRequest - skew;
  const left = leftAt !== null && leftAt >= lastRequest;
  const here = seconds < BOT_TIMEOUT && !left;
  const text = lastRequest === null ? "No bot yet" : here ? "Your bot is connected" : left ? "Your bot disconnected" : "Your bot is silent";
  $("presence").classList.toggle("here", here);
  const label = $("presence").lastElementChild;
  if (label.textContent !== text) label.textContent = text;
}

setInterval(showPresence, 1000);

function showRequests({ counts, latest }) {
  lastRequest = latest[0]?.at ?? null;
  showPresence();
  const names = Object.keys(counts).sort();
  $("counts").replaceChildren(...names.flatMap((name) => [words("dt", "", name), words("dd", "", `${counts[name]}`)]));
  list("requests", "no-requests", latest.map((request) => make("li", { className: request.fault ? "faulty" : "" },
    words("span", "body mono", request.target + (request.fault ? " (fault)" : "")), clock(request.date))));
}

function showLeft({ left_at }) {
  leftAt = left_at;
  showPresence();
}

const KINDS = {
  violation: { title: "Violation", one: "violation", many: "violations" },
  gap: { title: "Gap", one: "gap", many: "gaps" },
  ahead: { title: "Wrong position", one: "wrong position", many: "wrong positions" },
};

const counted = (number, { one, many }) => `${number} ${number === 1 ? one : many}`;

function showNotices({ counts, latest }) {
  const total = Object.values(counts).reduce((sum, number) => sum + number, 0);
  const first = total - latest.length;
  waiting.push(...latest.slice(Math.max(0, lastNotice - first)));
  if (total < lastNotice) waiting = [];
  lastNotice = total;
  if (waiting.length) setTimeout(showChat, 0, []);
  $("noticed").hidden = $("forget").hidden = total === 0;
  const summary = Object.entries(counts).map(([kind, number]) => counted(number, KINDS[kind])).join(", ");
  $("noticed").firstElementChild.textContent = total;
  $("noticed").lastElementChild.textContent = $("noticed").ariaLabel = summary;
  $("tab-bot").lastElementChild.textContent = total || "";
  list("notices", "no-notices", latest.slice(-30).reverse().map((notice) => make("li", {},
    body([words("span", "", `${KINDS[notice.kind].title}: ${notice.endpoint}${notice.kind === "violation" ? ` [${notice.rule}]` : ""}`), clock(notice.date)], notice.text))));
}

$("noticed").addEventListener("click", () => { open("bot"); $("tab-bot").focus({ preventScroll: true }); $("notices").scrollIntoView({ block: "nearest" }); });
$("forget").addEventListener("click", () => { $("tab-bot").focus(); post("forget"); });
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("environment").textContent);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("environment"));
    $("copy").textContent = "Selected";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
});

// -- faults --

function makeFaultChoices() {
  const groups = new Map();
  for (const [target, label] of Object.entries(hello.targets)) {
    const [service] = target.split(".");
    const whole = service === target;
    if (whole) groups.set(service, make("fieldset", { ariaLabel: label }));
    const options = Object.entries(hello.kinds).map(([kind, text]) => make("option", { value: kind, textContent: text }));
    const choice = make("select", { name: target }, ...options);
    choice.addEventListener("change", async () => {
      if (!await post("faults", { target, kind: choice.value })) showFaults(faults);
    });
    groups.get(service).append(make("label", { className: whole ? "whole" : "" }, words("span", "", label), choice));
  }
  $("targets").replaceChildren(...groups.values());
}

let faults = {};

function showFaults(now) {
  faults = now;
  for (const choice of $("targets").querySelectorAll("select")) {
    const [service] = choice.name.split(".");
    const kind = now[choice.name] ?? "normal";
    choice.options[0].textContent = choice.name !== service && now[service] ? "Same as the service" : hello.kinds.normal;
    choice.querySelector("[value=other]")?.remove();
    if (kind === "other") choice.append(make("option", { value: "other", textContent: "Other" }));
    choice.value = kind;
    choice.classList.toggle("set", kind !== "normal");
  }
  $("tab-faults").lastElementChild.textContent = Object.keys(now).length || "";
}

$("normal").addEventListener("click", () => post("normal"));
$("flood").addEventListener("click", () => post("flood"));

// -- mail and users --

function showMail({ inbox, unread, sent }) {
  $("tab-mail").lastElementChild.textContent = unread || "";
  list("inbox", "no-inbox", inbox.toReversed().map((mail) => make("li", { className: mail.read ? "" : "unread" },
    avatar(mail.sender),
    body([words("span", "", mail.sender), state(mail.read ? "read" : "unread"), clock(mail.date)], mail.text))));
  list("sent", "no-sent", sent.toReversed().map(([recipient, text]) => make("li", {},
    avatar(recipient),
    body([words("span", "", `to ${recipient}`)], text))));
}

function showDice({ balance, rolls }) {
  $("balance").textContent = balance;
  $("tab-dice").lastElementChild.textContent = rolls.length || "";
  list("rolls", "no-rolls", rolls.toReversed().map((roll) => make("li", { className: roll.won ? "won" : "" },
    avatar(roll.user),
    body([words("span", "", roll.user), state(roll.won ? "won" : "lost"), clock(roll.date)],
      `${roll.roll}, target ${roll.target}: bet ${roll.bet}, payout ${roll.payout} (currency ${roll.currency})`))));
}

function showUsers(users) {
  $("users").replaceChildren(...users.map((user) => make("li", { className: user.online ? "online" : "" },
    avatar(user.username),
    body([words("span", "", `${user.rank}, id ${user.id}`), state(user.online ? "online on xat" : "offline on xat")], user.username))));
}

for (const [id, clears] of [["deliver", "text"], ["user", "username"]]) {
  const form = $(id);
  remember(form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = {};
    for (const field of form.elements) if (field.name) fields[field.name] = field.type === "checkbox" ? field.checked : field.value;
    if (!await post(id === "deliver" ? "mail" : "users", fields)) return;
    form.elements[clears].value = "";
    memory.set(`${id}.${clears}`, "");
    form.elements[clears].focus();
  });
}

$("deliver").elements.text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("deliver").requestSubmit();
});

// -- tabs: the Tab key stops once, arrow keys move between them --

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(name) {
  for (const tab of tabs) {
    const chosen = tab.id === `tab-${name}`;
    tab.ariaSelected = `${chosen}`;
    tab.tabIndex = chosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  memory.set("tab", name);
}

// On a narrow page the panels are below the chat: what was chosen is brought into view.
function open(name) {
  select(name);
  if (getComputedStyle(document.querySelector("main")).display === "block") {
    document.querySelector("[role=tablist]").scrollIntoView({ block: "start" });
  }
}

for (const [at, tab] of tabs.entries()) {
  tab.addEventListener("click", () => open(tab.id.slice(4)));
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const other = tabs[(to + tabs.length) % tabs.length];
    other.focus({ preventScroll: true });
    open(other.id.slice(4));
  });
}

select(tabs.some((tab) => tab.id === `tab-${memory.get("tab")}`) ? memory.get("tab") : "bot");

// -- events --

function showHello(sent) {
  if (hello?.instance_id !== sent.instance_id) {
    $("log").replaceChildren();
    $("empty").hidden = false;
    lastMessage = lastNotice = 0;
    leftAt = null;
    waiting = [];
    before = null;
  }
  const sameServer = hello?.instance_id === sent.instance_id;
  hello = sent;
  skew = Date.now() / 1000 - sent.now;
  $("environment").textContent = Object.entries(sent.environment).map(([name, value]) => `export ${name}=${value}`).join("\n");
  $("say").elements.to.options[1].textContent = `only ${sent.bot}`;
  if (!sameServer) makeFaultChoices();
  count();
}

const SECTIONS = { hello: showHello, chat: showChat, mail: showMail, dice: showDice, users: showUsers, faults: showFaults, notices: showNotices, requests: showRequests, presence: showLeft, left_out: showLeftOut };

function connect() {
  const source = new EventSource("/api/events");
  for (const [name, show] of Object.entries(SECTIONS)) {
    source.addEventListener(name, (event) => show(JSON.parse(event.data)));
  }
  source.onopen = () => { $("lost").hidden = true; };
  source.onerror = () => {
    $("lost").hidden = false;
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 1000);
  };
}

connect();
