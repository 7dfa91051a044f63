// ZIP files (PKWARE's APPNOTE 6.3.10), whose contents are stored as they are: one download in place of several.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  return c;
});

/** CRC-32 of bytes. */
function crc32(bytes) {
  let c = 0xffffffff;
  for (const byte of bytes) c = (c >>> 8) ^ TABLE[(c ^ byte) & 255];
  return (c ^ 0xffffffff) >>> 0;
}

/** Little-endian numbers, given as [size in bytes, value]. */
function fields(...given) {
  const out = new DataView(new ArrayBuffer(given.reduce((n, [size]) => n + size, 0)));
  let at = 0;
  for (const [size, value] of given) {
    if (size === 2) out.setUint16(at, value, true);
    else out.setUint32(at, value, true);
    at += size;
  }
  return new Uint8Array(out.buffer);
}

/** A ZIP file, as a Blob, of entries [name, bytes]; their date is the first one that the format has, 1980-01-01. */
export function zip(files) {
  const parts = [];
  const directory = [];
  let at = 0;
  for (const [text, bytes] of files) {
    const name = new TextEncoder().encode(text);
    const common = [[2, 20], [2, 0x0800], [2, 0], [2, 0], [2, 0x21], [4, crc32(bytes)], [4, bytes.length], [4, bytes.length], [2, name.length], [2, 0]];
    const local = fields([4, 0x04034b50], ...common);
    directory.push(fields([4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]), name);
    parts.push(local, name, bytes);
    at += local.length + name.length + bytes.length;
  }
  const size = directory.reduce((n, part) => n + part.length, 0);
  const end = fields([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, at], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
