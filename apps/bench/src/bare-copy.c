// The least that a commit can be: the same extents, copied by the kernel, with early write-out and two flushes, and no metadata.
// bare-copy EXTENTS BASE LAYER...: each line of EXTENTS is "layer source-offset base-offset length", bytes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EARLY = 16 << 20, LAYERS = 64 };

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void copy(int from, off_t source, int to, off_t target, size_t length) {
  while (length > 0) {
    ssize_t done = copy_file_range(from, &source, to, &target, length, 0);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail("copy_file_range");
    length -= (size_t)done;
  }
}

int main(int count, char **args) {
  if (count < 4 || count > LAYERS) return 2;
  FILE *extents = fopen(args[1], "r");
  int base = open(args[2], O_RDWR);
  if (extents == NULL || base < 0) fail("open");
  int layers[LAYERS];
  for (int index = 3; index < count; index += 1)
    if ((layers[index - 3] = open(args[index], O_RDONLY)) < 0) fail(args[index]);
  int layer;
  int64_t source, target, length, early = 0;
  while (fscanf(extents, "%d %" SCNd64 " %" SCNd64 " %" SCNd64, &layer, &source, &target, &length) == 4) {
    copy(layers[layer], source, base, target, (size_t)length);
    early += length;
    if (early < EARLY) continue;
    early = 0;
    if (sync_file_range(base, 0, 0, SYNC_FILE_RANGE_WRITE) < 0) fail("sync_file_range");
  }
  // data, then mapping
  if (fdatasync(base) < 0 || fdatasync(base) < 0) fail("fdatasync");
  return 0;
}
