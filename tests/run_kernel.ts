/** Where kernel tests find the runner of single kernels. */
export { type Call, layout, runKernels } from "../src/bench/run_kernels.ts";
