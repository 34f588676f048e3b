package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// sequences reports whether a console knows control sequences, which it is told to do.
// Consoles before Windows 10 do not.
func sequences(console *os.File) bool {
	var mode uint32
	handle := windows.Handle(console.Fd())
	if err := windows.GetConsoleMode(handle, &mode); err != nil {
		return false
	}
	return mode&windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING != 0 ||
		windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}

func foreground(*os.File) bool { return true }

// resizes returns no signal: the system has none, and the size is looked at regularly.
func resizes() (resized <-chan os.Signal, stop func()) { return nil, func() {} }
