/**
 * What kernels know of the device that they are made for.
 *
 * @module
 */

/** What kernels may depend on besides shapes. */
export interface Capabilities {
  /** True on software adapters (lavapipe): registers and `vec4` loads instead of workgroup tiles. */
  readonly software: boolean;
  /** Bytes that one binding may cover. */
  readonly maxBindingBytes: number;
  /** Bytes of workgroup memory. */
  readonly workgroupBytes: number;
  /** Invocations of a workgroup. */
  readonly maxInvocations: number;
  /** Least and largest subgroup size, or null where the device has no subgroups. */
  readonly subgroups: { readonly min: number; readonly max: number } | null;
}
