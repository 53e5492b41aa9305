/** Where kernel tests find the runner of single kernels. */
export { type Call, callOn, layout, runKernels } from "../src/bench/run_kernels.ts";
