// Decompression for marketfeed.js: the option `inflate` of `connect`. Frames of kind 6, docs/protocol.md.

const HEADER_BYTES = 16;
const MAX_BYTES = 1 << 20; // of the text in a frame
const SLICE_BYTES = 1024; // deflate expands at most 1032 times, so one slice yields about 1 MiB at most

/** @type {import("./types.js").Inflate} */
export const inflate = async (frame) => {
	const header = new DataView(frame);
	if (frame.byteLength < HEADER_BYTES || header.getUint8(0) !== 1 || header.getUint8(1) !== 6) {
		throw new Error("not a compressed frame of version 1");
	}
	if (header.getUint32(4, true) !== frame.byteLength - HEADER_BYTES) throw new Error("a compressed frame is cut off");
	let at = HEADER_BYTES, text = "", bytes = 0;
	const slices = new ReadableStream({
		pull(out) {
			if (at >= frame.byteLength) out.close();
			else out.enqueue(new Uint8Array(frame.slice(at, (at += SLICE_BYTES))));
		},
	});
	const reader = slices.pipeThrough(new DecompressionStream("deflate-raw")).getReader();
	const decoder = new TextDecoder("utf-8", { fatal: true });
	for (;;) {
		const { value, done } = await reader.read();
		if (done) return text + decoder.decode();
		bytes += value.byteLength;
		if (bytes > MAX_BYTES) {
			reader.cancel().catch(() => {});
			throw new Error("a compressed frame holds more than 1 MiB");
		}
		text += decoder.decode(value, { stream: true });
	}
};
