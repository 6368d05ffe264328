// Controls of a bundle's settings, made of the schemas that the server tells: a range for a number, a box for a switch, a list for a word.

const LABELS = {
  cfg_scale: ["Guidance", "How closely the picture follows the words; 0 turns guidance off."],
  top_p: ["Top-p", "Choose among the likeliest codes that share this probability: lower is tidier, higher more varied."],
  top_k: ["Top-k", "Choose among so many of the likeliest codes."],
  smooth: ["Smooth", "Mix codes instead of choosing one."],
  speed: ["Speed", "Balanced and fast compute less: another picture, about as good."],
};
const FIRST = ["cfg_scale", "top_p"];
const WIDEST = { cfg_scale: 15 }; // of the slider; the field of the API goes further

export class Settings {
  constructor(home, changed) {
    this.home = home;
    this.changed = changed; // called when a control was moved
    this.controls = new Map();
  }

  // Make the controls of a bundle. schemas: of GET /v1/capabilities.
  show(schemas) {
    this.home.replaceChildren();
    this.controls.clear();
    const names = [...FIRST.filter((name) => name in schemas), ...Object.keys(schemas).filter((name) => !FIRST.includes(name))];
    for (const name of names) this.#add(name, schemas[name]);
    this.changed();
  }

  #add(name, schema) {
    const [title, hint] = LABELS[name] || [name, schema.description];
    const row = document.createElement("div"), label = document.createElement("label");
    const input = document.createElement(schema.enum ? "select" : "input");
    const output = document.createElement("output"), words = document.createElement("p");
    row.className = "row";
    label.textContent = title;
    label.htmlFor = input.id = `setting-${name}`;
    words.className = "hint";
    words.id = `${input.id}-hint`;
    words.textContent = hint;
    input.setAttribute("aria-describedby", words.id);
    const own = Array.isArray(schema.default) ? null : schema.default; // a table: no single value stands for it
    const control = { input, own, touched: false, kind: schema.type };
    if (schema.type === "boolean") {
      input.type = "checkbox";
      row.append(label, input, words);
    } else if (schema.enum) {
      if (schema.enum.length < 2) return; // nothing to choose
      input.append(...schema.enum.map((word) => new Option(word, word)));
      row.append(label, input, words);
    } else {
      const whole = schema.type === "integer";
      input.type = "range";
      input.min = schema.minimum ?? 0.01;
      input.max = Math.min(schema.maximum, WIDEST[name] ?? schema.maximum);
      input.step = whole ? 1 : schema.maximum <= 1 ? 0.01 : 0.1;
      row.append(label, output, input, words);
    }
    control.tell = () => {
      if (control.kind !== "string") output.textContent = control.touched || own !== null ? String(Number(input.value)) : "the bundle's";
    };
    input.addEventListener("input", () => {
      control.touched = true;
      control.tell();
      this.changed();
    });
    this.home.append(row);
    this.controls.set(name, control);
    this.#put(control, own, schema.maximum);
  }

  #put(control, value, highest) {
    if (control.kind === "boolean") control.input.checked = value;
    else if (control.kind === "string") control.input.value = value;
    else {
      if (value !== null) control.input.max = Math.max(control.input.max, value);
      control.input.value = value ?? highest;
    }
    control.tell();
  }

  // Only what differs from the bundle's own, by name.
  values() {
    const found = {};
    for (const [name, { input, own, touched, kind }] of this.controls) {
      const value = kind === "boolean" ? input.checked : kind === "string" ? input.value : Number(input.value);
      if (touched && value !== own) found[name] = value;
    }
    return found;
  }

  // Set the controls to what a picture was drawn with.
  take(used) {
    for (const [name, control] of this.controls) {
      const value = used[name];
      if (value === undefined) continue;
      control.touched = !Array.isArray(value) && value !== control.own;
      if (!Array.isArray(value)) this.#put(control, value, control.input.max);
    }
    this.changed();
  }

  reset() {
    for (const control of this.controls.values()) {
      control.touched = false;
      this.#put(control, control.own, control.input.max);
    }
    this.changed();
  }
}
