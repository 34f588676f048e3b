//go:build unix

package openfiles

import "golang.org/x/sys/unix"

// unlimited is a limit that no process of ours reaches.
const unlimited = 1 << 20

// Limit returns how many files the system lets this process have open; 0: as many as
// it likes. The Go runtime has raised the soft limit to the hard one.
func Limit() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || uint64(limit.Cur) >= unlimited {
		return 0
	}
	return int(limit.Cur)
}
