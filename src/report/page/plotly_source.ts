/**
 * The text of plotly.min.js: it needs a browser, so it is never run here. Loaded only when a report
 * is made: importing this module asks for an npm package.
 *
 * @module
 */
import source from "plotly.js-dist-min/plotly.min.js" with { type: "text" };

export default source as string;
