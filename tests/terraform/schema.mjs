// Prints what the AWS provider's schema says of resources and data sources, as `@cdktn/provider-aws` carries it: for each
// block its attributes and blocks, and which of them are required. Its text is read, not run: running it needs its peers.
//
//     node schema.mjs glue-catalog-table data-aws-partition ...
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const library = join(dirname(createRequire(import.meta.url).resolve("@cdktn/provider-aws/package.json")), "lib");

// Of each interface, which of its fields are required.
function interfaces(text) {
  const found = new Map();
  for (const [, name, body] of text.matchAll(/export interface (\w+)[^{]*\{\n([\s\S]*?)\n\}/g)) {
    const fields = new Map();
    for (const [, field, optional] of body.matchAll(/^ {4}readonly (\w+)(\??):/gm)) fields.set(field, optional === "");
    found.set(name, fields);
  }
  return found;
}

// The entries of an `attrs` object: name in HCL, name in JavaScript, whether it is a block, and the function of its fields.
function entries(body) {
  const entry = /^ +(\w+): \{\n +value: (.*),\n +isBlock: (true|false),/gm;
  return [...body.matchAll(entry)].map(([, name, value, isBlock]) => {
    const field = value.match(/(?:struct|this)\.(_?\w+)/)[1].replace(/^_/, "");
    const nested = value.match(/\b(\w+)ToHclTerraform/);
    return { name, field, isBlock: isBlock === "true", nested: nested?.[1] };
  });
}

function schema(folder) {
  const text = readFileSync(join(library, folder, "index.js"), "utf8");
  const required = interfaces(readFileSync(join(library, folder, "index.d.ts"), "utf8"));
  const functions = new Map();
  for (const [, name, body] of text.matchAll(/^function (\w+)ToHclTerraform\(struct\) \{\n([\s\S]*?)\n\}/gm)) {
    functions.set(name, body);
  }
  function block(list, interfaceName) {
    const fields = required.get(interfaceName);
    if (!fields) throw new Error(`${folder} has no interface ${interfaceName}`);
    const attributes = {};
    const blocks = {};
    for (const { name, field, isBlock, nested } of list) {
      if (!fields.has(field)) throw new Error(`${interfaceName} has no field ${field}`);
      if (isBlock) {
        const inner = nested[0].toUpperCase() + nested.slice(1);
        blocks[name] = { required: fields.get(field), ...block(entries(functions.get(nested)), inner) };
      } else {
        attributes[name] = { required: fields.get(field) };
      }
    }
    return { attributes, blocks };
  }
  const [, kind, type] = text.match(/^(\w+)\.tfResourceType = "(\w+)";/m);
  const top = text.match(/synthesizeHclAttributes\(\) \{\n([\s\S]*?)\n {4}\}/)[1];
  return [type, block(entries(top), `${kind}Config`)];
}

const kinds = { resource: {}, data: {} };
for (const folder of process.argv.slice(2)) {
  const [type, found] = schema(folder);
  if (Object.keys(found.attributes).length + Object.keys(found.blocks).length === 0) {
    throw new Error(`nothing of ${folder} was understood`);
  }
  kinds[folder.startsWith("data-aws-") ? "data" : "resource"][type] = found;
}
console.log(JSON.stringify(kinds));
