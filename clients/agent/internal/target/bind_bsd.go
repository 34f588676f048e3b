//go:build unix && !linux

package target

// choosePortLater does nothing: only Linux lets bind leave the port to connect.
func choosePortLater(int) {}
