/* One clock for everything that moves: at most 30 paints a second, none while the page is hidden. */

const FRAME_MS = 1000 / 30 - 4; // of a 60 Hz display every second frame
const painters = new Set();
let painted = 0;
let wanted = 0;

function frame(now) {
  wanted = requestAnimationFrame(frame);
  if (now - painted < FRAME_MS) return;
  painted = now;
  for (const painter of painters) painter(now);
}

/** Call `painter(now)` before each paint, until the function that is returned is called. */
export function onPaint(painter) {
  painters.add(painter);
  if (!wanted) wanted = requestAnimationFrame(frame);
  return () => {
    painters.delete(painter);
    if (painters.size === 0) {
      cancelAnimationFrame(wanted);
      wanted = 0;
    }
  };
}

const timers = new Set();

/** Call `work` every `ms` while the page is visible, at once and when it is shown again; returns what ends it. */
export function whileVisible(ms, work) {
  const timer = { id: 0 };
  const start = () => {
    clearInterval(timer.id);
    timer.id = 0;
    if (document.hidden) return;
    work();
    timer.id = setInterval(work, ms);
  };
  timer.start = start;
  timers.add(timer);
  start();
  return () => {
    clearInterval(timer.id);
    timers.delete(timer);
  };
}

document.addEventListener("visibilitychange", () => {
  for (const timer of timers) timer.start();
});
