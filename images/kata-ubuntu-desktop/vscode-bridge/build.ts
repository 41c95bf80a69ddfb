// Bundles the extension into one file and packs it: `node build.ts FILE.vsix`. The same sources make
// the same bytes.

import { build } from "esbuild";
import { createWriteStream, readFileSync } from "node:fs";
import { pipeline } from "node:stream/promises";
// @ts-expect-error: it has no types
import { ZipFile } from "yazl";

const [target] = process.argv.slice(2);
if (!target) throw new Error("usage: node build.ts FILE.vsix");

const bundle = await build({
  entryPoints: ["src/extension.ts"],
  bundle: true,
  write: false,
  platform: "node",
  target: "node20",
  format: "cjs",
  external: ["vscode"],
  minify: true,
  keepNames: true,
  // Their ES modules are bundled, not what they have for require().
  mainFields: ["module", "main"],
  logLevel: "warning",
});

const { scripts, devDependencies, dependencies, type, private: _, ...manifest } = JSON.parse(
  readFileSync("package.json", "utf8"),
);
const identity = `Id="${manifest.name}" Version="${manifest.version}" Publisher="${manifest.publisher}"`;
const files: Record<string, Uint8Array | string> = {
  "extension.vsixmanifest": `<?xml version="1.0" encoding="utf-8"?>
<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011">
  <Metadata>
    <Identity Language="en-US" ${identity}/>
    <DisplayName>${manifest.displayName}</DisplayName>
    <Description xml:space="preserve">${manifest.description}</Description>
    <Properties>
      <Property Id="Microsoft.VisualStudio.Code.Engine" Value="${manifest.engines.vscode}"/>
      <Property Id="Microsoft.VisualStudio.Code.ExtensionKind" Value="workspace"/>
    </Properties>
  </Metadata>
  <Installation><InstallationTarget Id="Microsoft.VisualStudio.Code"/></Installation>
  <Dependencies/>
  <Assets>
    <Asset Type="Microsoft.VisualStudio.Code.Manifest" Path="extension/package.json" Addressable="true"/>
  </Assets>
</PackageManifest>
`,
  "[Content_Types].xml": `<?xml version="1.0" encoding="utf-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
  <Default Extension=".json" ContentType="application/json"/>
  <Default Extension=".cjs" ContentType="application/javascript"/>
  <Default Extension=".vsixmanifest" ContentType="text/xml"/>
</Types>
`,
  "extension/package.json": JSON.stringify(manifest, null, 2) + "\n",
  "extension/dist/extension.cjs": bundle.outputFiles[0]!.contents,
};

const zip = new ZipFile();
for (const [name, content] of Object.entries(files)) {
  zip.addBuffer(Buffer.from(content as string), name, { mtime: new Date(2000, 0, 1), mode: 0o100644 });
}
zip.end();
await pipeline(zip.outputStream, createWriteStream(target));
