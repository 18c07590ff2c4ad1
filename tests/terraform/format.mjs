// Formats what comes in, as hclwrite does, which `terraform fmt` is made of.
import { format } from "@cdktn/hcl-tools";
import { readFileSync, writeFileSync } from "node:fs";

writeFileSync(1, await format(readFileSync(0, "utf8")));
process.exit(0);
