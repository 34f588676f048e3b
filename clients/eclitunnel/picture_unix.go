//go:build !windows

package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// sequences reports whether a terminal knows control sequences. All do here.
func sequences(*os.File) bool { return true }

// foreground reports whether this program is the one that a terminal is for: a shell may
// have started it with &. It is true where the terminal is not that of the session.
func foreground(terminal *os.File) bool {
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err != nil || group == 0 || group == unix.Getpgrp()
}

// resizes returns a signal for each change of the terminal's size, until stop is called.
func resizes() (resized <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGWINCH)
	return c, func() { signal.Stop(c) }
}
