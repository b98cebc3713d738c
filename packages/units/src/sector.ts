/** Unit in which QEMU counts disks, in bytes. A file that ends inside one reads as if zeros completed it. */
export const SECTOR_BYTES = 512;
