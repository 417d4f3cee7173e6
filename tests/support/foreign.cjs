// What hdr-histogram-js, an implementation of another make, finds in a log; and a log that it writes.
// node foreign.cjs MODULE read LOG | node foreign.cjs MODULE write LOG
"use strict";
const fs = require("fs");
const hdr = require(process.argv[2]);
const [verb, path] = process.argv.slice(3);
if (verb === "read") {
  const reader = new hdr.HistogramLogReader(fs.readFileSync(path, "utf8"));
  const found = [];
  for (let h = reader.nextIntervalHistogram(); h; h = reader.nextIntervalHistogram()) {
    found.push({
      tag: h.tag,
      start_ms: h.startTimeStampMsec,
      end_ms: h.endTimeStampMsec,
      count: h.totalCount,
      percentiles: [50, 90, 99, 99.9, 99.99, 100].map((p) => h.getValueAtPercentile(p)),
    });
  }
  console.log(JSON.stringify(found));
} else {
  const histogram = hdr.build({ lowestDiscernibleValue: 1, highestTrackableValue: 3.6e12, numberOfSignificantValueDigits: 2 });
  for (let i = 1; i <= 1000; i++) histogram.recordValue(i * 1000);
  histogram.tag = "stage-1";
  let text = "";
  const writer = new hdr.HistogramLogWriter((part) => (text += part));
  writer.outputLogFormatVersion();
  writer.outputStartTime(1790000000000);
  writer.outputLegend();
  writer.outputIntervalHistogram(histogram, 1790000000, 1790000010, 1e6);
  fs.writeFileSync(path, text);
}
