import { connect } from "http://127.0.0.1:8765/marketfeed.js";

const feed = connect("http://127.0.0.1:8765");
feed.subscribe({ quotes: ["SY00*"] }, (message) => console.log(message));
