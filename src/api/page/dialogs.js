// The one dialog of the page: it asks for a yes, or for a word. Escape and Cancel say no.

const dialog = document.getElementById("ask-dialog");
const part = (id) => document.getElementById(`dialog-${id}`);
let open = Promise.resolve();

/** Asks for a yes or no. */
export async function confirm({ title, text, yes }) {
  return (await ask({ title, text, yes, danger: true })) !== null;
}

/** Asks for a word, or null. `secret` hides what is typed, `required` takes no empty one. */
export function askFor({ label, ...rest }) {
  return ask({ label, ...rest });
}

// One question at a time: a second one waits for the answer to the first.
function ask(question) {
  const answer = open.then(() => show(question));
  open = answer;
  return answer;
}

function show(question) {
  const { title, text, yes, label = null, secret, required = false, danger = false } = question;
  const field = part("field");
  const input = field.querySelector("input");
  part("title").textContent = title;
  part("text").textContent = text;
  part("yes").textContent = yes;
  part("yes").classList.toggle("danger", danger);
  field.hidden = label === null;
  field.querySelector("span").textContent = label ?? "";
  Object.assign(input, { value: "", type: secret ? "password" : "text", required });
  // What destroys has to be chosen on purpose: the way out has the focus.
  dialog.returnValue = "";
  dialog.showModal();
  (label === null ? part("no") : input).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const value = input.value.trim();
      input.value = "";
      resolve(dialog.returnValue === "yes" ? value : null);
    }, { once: true });
  });
}

part("no").addEventListener("click", () => dialog.close(""));
