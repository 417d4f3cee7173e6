// node `ws`: one send of each quote to each of the symbol's subscribers, a socket's writes of one round corked together.
import { createRequire } from 'node:module';

const [port, rate, universe] = process.argv.slice(2, 5).map(Number);
// NODE_PATH holds for require only: `ws` lies in a temporary folder.
const { WebSocketServer } = createRequire(import.meta.url)('ws');
const subscribers = Array.from({ length: universe }, () => new Set());
const numbers = new Array(universe).fill(0);
const MAX_BEHIND_S = 0.25;

const server = new WebSocketServer({ host: '127.0.0.1', port, perMessageDeflate: false, backlog: 1024 });
server.on('connection', (session) => {
  const mine = [];
  session.on('message', (request) => {
    for (const name of JSON.parse(request).quotes) mine.push(Number(name.slice(2)));
    for (const symbol of mine) subscribers[symbol].add(session);
  });
  session.on('close', () => mine.forEach((symbol) => subscribers[symbol].delete(session)));
  session.on('error', () => {});
});

const start = performance.now();
let made = 0, givenUp = 0;
function publish() {
  let due = Math.floor((performance.now() - start) / 1000 * rate) - made - givenUp;
  const most = Math.max(Math.floor(MAX_BEHIND_S * rate), 1);
  if (due > most) { givenUp += due - most; due = most; }
  const nowUs = Math.round((performance.timeOrigin + performance.now()) * 1000);
  const touched = new Set();
  for (; due > 0; due--) {
    const symbol = Math.floor(Math.random() * universe);
    const name = String(symbol).padStart(4, '0');
    const message = Buffer.from(`[{"T":"q","S":"SY${name}","bp":101.25,"bs":100.0,"ap":101.27,"as":200.0,`
      + `"t":${nowUs},"r":${nowUs},"n":${++numbers[symbol]},"g":${++made}}]`);
    for (const session of subscribers[symbol]) {
      if (!touched.has(session)) { touched.add(session); session._socket.cork(); }
      session.send(message, { binary: false });
    }
  }
  for (const session of touched) session._socket?.uncork();
  setTimeout(publish, 1);
}
server.on('listening', () => { console.log('ready'); publish(); });
