// LD_PRELOAD shim that simulates a power loss for files under $PL_DIR.
// Every write since the last fsync/fdatasync of that file is journaled (old + new bytes). After $PL_MS
// milliseconds (counted from the first write to stdout, or from the first that begins with $PL_MARK) the shim stops
// all I/O, rolls every file back to its last synced image, re-applies a random
// $PL_KEEP percent of the unsynced 4 KiB pieces (torn, reordered writes), and exits with 77.
// $PL_SFR: how sync_file_range counts: "none" (as its man page warns: no guarantee), "data" (the bytes are
// safe, a new file size is not: ext4 with a non-volatile device cache), "full" (as fdatasync).
// Directory entries are assumed durable at once (kind to the store). Not modelled: mmap writes, io_uring.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAXF 4096
typedef struct rec { struct rec *prev; off_t off, old_size; size_t len, old_len; char *oldb, *newb; } rec;
typedef struct { dev_t d; ino_t i; off_t durable; rec *tail; int fd; int trunc; } file;
static file F[MAXF];
static int nf, started;
static pthread_mutex_t M = PTHREAD_MUTEX_INITIALIZER;
static char dirp[512];
static int keep, sfr; // sfr 0 none 1 data 2 full
static const char *mark;
static long ms;
static volatile int armed;
static long n_sync, n_sfr, n_write;

#define REAL(r, name, ...) static r (*real_##name)(__VA_ARGS__); if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name)

static ssize_t raw_pwrite(int fd, const void *b, size_t n, off_t o) { REAL(ssize_t, pwrite64, int, const void *, size_t, off_t); return real_pwrite64(fd, b, n, o); }
static int raw_ftruncate(int fd, off_t n) { REAL(int, ftruncate64, int, off_t); return real_ftruncate64(fd, n); }

static file *look(int fd) {
  struct stat st;
  if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return 0;
  for (int k = 0; k < nf; k++) if (F[k].d == st.st_dev && F[k].i == st.st_ino) return &F[k];
  return 0;
}
static void *killer(void *x) {
  while (!armed) usleep(1000);
  struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
  nanosleep(&t, 0);
  pthread_mutex_lock(&M);
  unsigned seed = (unsigned)(time(0) ^ getpid());
  long undone = 0, kept = 0;
  for (int k = 0; k < nf; k++) {
    file *f = &F[k];
    rec *list = 0; // oldest first after the reversal below
    for (rec *r = f->tail; r; ) { // newest to oldest: roll back
      if (r->old_len) raw_pwrite(f->fd, r->oldb, r->old_len, r->off);
      rec *p = r->prev; r->prev = list; list = r; r = p; undone++;
    }
    if (f->tail || f->trunc) raw_ftruncate(f->fd, f->durable);
    for (rec *r = list; r; r = r->prev)
      for (size_t o = 0; o < r->len; o += 4096)
        if (r->newb && (int)(rand_r(&seed) % 100) < keep) {
          size_t n = r->len - o < 4096 ? r->len - o : 4096;
          raw_pwrite(f->fd, r->newb + o, n, r->off + (off_t)o); kept++;
        }
  }
  fprintf(stderr, "POWERLOSS writes=%ld syncs=%ld sync_file_range=%ld undone=%ld kept_pieces=%ld\n", n_write, n_sync, n_sfr, undone, kept);
  _exit(77);
}
static void init(void) {
  if (started) return;
  started = 1;
  const char *d = getenv("PL_DIR");
  if (!d) { started = 2; return; }
  snprintf(dirp, sizeof dirp, "%s", d);
  keep = getenv("PL_KEEP") ? atoi(getenv("PL_KEEP")) : 0;
  mark = getenv("PL_MARK");
  ms = getenv("PL_MS") ? atol(getenv("PL_MS")) : 1000;
  const char *s = getenv("PL_SFR");
  sfr = !s || !strcmp(s, "none") ? 0 : !strcmp(s, "data") ? 1 : 2;
  pthread_t t;
  pthread_create(&t, 0, killer, 0);
}
__attribute__((constructor)) static void ctor(void) { init(); }

static void opened(int fd, const char *path, int flags, off_t size_before) {
  if (fd < 0 || started != 1) return;
  char link[64], real[1024];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, real, sizeof real - 1);
  if (n <= 0) return;
  real[n] = 0;
  if (strncmp(real, dirp, strlen(dirp))) return;
  struct stat st;
  if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return;
  for (int k = 0; k < nf; k++) if (F[k].d == st.st_dev && F[k].i == st.st_ino) return;
  if (nf == MAXF) { fprintf(stderr, "powerloss: too many files\n"); _exit(99); }
  file *f = &F[nf];
  REAL(int, open64, const char *, int, ...);
  f->fd = real_open64(real, O_RDWR);
  if (f->fd < 0) return;
  f->d = st.st_dev; f->i = st.st_ino; f->durable = st.st_size; f->tail = 0; f->trunc = 0;
  nf++;
}
static void journal(int fd, const void *b, size_t n, off_t o) {
  file *f = look(fd);
  if (!f) return;
  n_write++;
  struct stat st; fstat(fd, &st);
  rec *r = calloc(1, sizeof *r);
  r->off = o; r->len = n; r->old_size = st.st_size;
  if (o < st.st_size) {
    size_t m = (size_t)(st.st_size - o) < n ? (size_t)(st.st_size - o) : n;
    r->oldb = malloc(m);
    ssize_t g = pread(f->fd, r->oldb, m, o);
    r->old_len = g > 0 ? (size_t)g : 0;
  }
  r->newb = malloc(n ? n : 1); memcpy(r->newb, b, n);
  r->prev = f->tail; f->tail = r;
}
static void synced(int fd, int data_only) {
  file *f = look(fd);
  if (!f) return;
  struct stat st; fstat(fd, &st);
  for (rec *r = f->tail; r; ) { rec *p = r->prev; free(r->oldb); free(r->newb); free(r); r = p; }
  f->tail = 0;
  if (!data_only) { f->durable = st.st_size; f->trunc = 0; }
  else if (st.st_size != f->durable) f->trunc = 1;
}
#define OPENW(name, at, PROTO, CALL) \
  int name PROTO { init(); mode_t m = 0; va_list ap; va_start(ap, fl); if (fl & (O_CREAT | O_TMPFILE)) m = va_arg(ap, mode_t); va_end(ap); \
    static int (*rf) PROTO; if (!rf) rf = dlsym(RTLD_NEXT, #name); \
    pthread_mutex_lock(&M); int fd = rf CALL; int e = errno; opened(fd, p, fl, 0); pthread_mutex_unlock(&M); errno = e; return fd; }
OPENW(open, 0, (const char *p, int fl, ...), (p, fl, m))
OPENW(open64, 0, (const char *p, int fl, ...), (p, fl, m))
OPENW(openat, 1, (int dfd, const char *p, int fl, ...), (dfd, p, fl, m))
OPENW(openat64, 1, (int dfd, const char *p, int fl, ...), (dfd, p, fl, m))

ssize_t write(int fd, const void *b, size_t n) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (started != 1) return real_write(fd, b, n);
  if (fd == 1 && (!mark || (n >= strlen(mark) && !memcmp(b, mark, strlen(mark))))) armed = 1;
  pthread_mutex_lock(&M);
  if (look(fd)) {
    int fl = fcntl(fd, F_GETFL); struct stat st; fstat(fd, &st);
    journal(fd, b, n, fl & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR));
  }
  ssize_t r = real_write(fd, b, n);
  pthread_mutex_unlock(&M);
  return r;
}
#define PW(name) ssize_t name(int fd, const void *b, size_t n, off_t o) { REAL(ssize_t, name, int, const void *, size_t, off_t); if (started != 1) return real_##name(fd, b, n, o); \
  pthread_mutex_lock(&M); journal(fd, b, n, o); ssize_t r = real_##name(fd, b, n, o); pthread_mutex_unlock(&M); return r; }
PW(pwrite)
PW(pwrite64)
ssize_t writev(int fd, const struct iovec *v, int c) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  if (started != 1) return real_writev(fd, v, c);
  pthread_mutex_lock(&M);
  if (look(fd)) {
    int fl = fcntl(fd, F_GETFL); struct stat st; fstat(fd, &st);
    off_t o = fl & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
    for (int k = 0; k < c; k++) { journal(fd, v[k].iov_base, v[k].iov_len, o); o += v[k].iov_len; }
  }
  ssize_t r = real_writev(fd, v, c);
  pthread_mutex_unlock(&M);
  return r;
}
#define FT(name) int name(int fd, off_t n) { REAL(int, name, int, off_t); if (started != 1) return real_##name(fd, n); pthread_mutex_lock(&M); \
  file *f = look(fd); struct stat st; if (f) { fstat(fd, &st); if (n < st.st_size) { /* save the cut tail */ \
    rec *r = calloc(1, sizeof *r); r->off = n; r->len = 0; r->old_size = st.st_size; r->oldb = malloc(st.st_size - n); \
    ssize_t g = pread(f->fd, r->oldb, st.st_size - n, n); r->old_len = g > 0 ? g : 0; r->prev = f->tail; f->tail = r; } f->trunc = 1; } \
  int r = real_##name(fd, n); pthread_mutex_unlock(&M); return r; }
FT(ftruncate)
FT(ftruncate64)
int fallocate(int fd, int mode, off_t o, off_t n) { REAL(int, fallocate, int, int, off_t, off_t); if (started == 1) { pthread_mutex_lock(&M); file *f = look(fd); if (f) f->trunc = 1; int r = real_fallocate(fd, mode, o, n); pthread_mutex_unlock(&M); return r; } return real_fallocate(fd, mode, o, n); }
int fallocate64(int fd, int mode, off_t o, off_t n) { return fallocate(fd, mode, o, n); }
#define FS(name) int name(int fd) { REAL(int, name, int); if (started != 1) return real_##name(fd); \
  int r = real_##name(fd); pthread_mutex_lock(&M); n_sync++; if (!r) synced(fd, 0); pthread_mutex_unlock(&M); return r; }
FS(fsync)
FS(fdatasync)
int syncfs(int fd) { REAL(int, syncfs, int); int r = real_syncfs(fd); // every tracked file is durable
  if (started == 1 && !r) { pthread_mutex_lock(&M); n_sync++; for (int k = 0; k < nf; k++) synced(F[k].fd, 0); pthread_mutex_unlock(&M); } return r; }
int sync_file_range(int fd, off_t o, off_t n, unsigned fl) {
  REAL(int, sync_file_range, int, off_t, off_t, unsigned);
  int r = real_sync_file_range(fd, o, n, fl);
  if (started == 1) { pthread_mutex_lock(&M); n_sfr++; if (!r && sfr) synced(fd, sfr == 1); pthread_mutex_unlock(&M); }
  return r;
}
