/*
 * Keeps the host's signal handlers off the stacks of Go.
 *
 * Fluent Bit installs its handlers with signal(), and again inside the handlers of SIGHUP and
 * SIGCONT (flb_signal_handler in src/fluent-bit.c, 4.1 to 5.1). So they run on the stack of any
 * thread that the kernel picks. That stack may be a goroutine's. It is small and lies in Go's heap,
 * and the handler then writes over the memory next to it. The Go runtime sets SA_ONSTACK only for
 * handlers that exist when it is loaded.
 *
 * So these signals are blocked where Go runs. One place are the threads that the Go runtime starts:
 * they inherit the signals that are blocked while the library is loaded. The other are the host's
 * threads while they are inside a call of ours. The host's main thread only waits, and takes the
 * signals.
 */
#include "flb.h"

static const int host_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGCONT};
static sigset_t before_load;

void defender_block_signals(sigset_t *before)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof host_signals / sizeof *host_signals; i++) {
        sigaddset(&set, host_signals[i]);
    }
    pthread_sigmask(SIG_BLOCK, &set, before);
}

void defender_restore_signals(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

/*
 * An initialiser of this library starts the Go runtime, too. It has no priority. Those with one come
 * first, and the linker puts Go's before the others. So the order is: block, start Go, restore. In
 * another order nothing would be protected, but nothing would stay blocked either.
 */
__attribute__((constructor(101))) static void before_go(void) { defender_block_signals(&before_load); }
__attribute__((constructor)) static void after_go(void) { defender_restore_signals(&before_load); }

/*
 * Fluent Bit's handlers also take the place of Go's own. Those turn a nil pointer into a panic that
 * can be recovered, and pass on signals that are not Go's. They are put back at the next tick.
 * SA_ONSTACK marks Go's handlers: signal() never sets it.
 */
void defender_keep_handlers(void)
{
    static const int faults[] = {SIGSEGV, SIGFPE};
    static struct sigaction of_go[sizeof faults / sizeof *faults];
    static int known;

    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct sigaction now;

        if (sigaction(faults[i], NULL, &now) != 0) {
            continue;
        }
        if ((now.sa_flags & SA_ONSTACK) == 0 && known) {
            sigaction(faults[i], &of_go[i], NULL);
        } else if (now.sa_sigaction != of_go[i].sa_sigaction) {
            of_go[i] = now; /* ours, or that of a Go plugin that was loaded later and passes the rest on */
        }
    }
    known = 1;
}
