//go:build !linux

package target

import "errors"

// readSockets returns an error: only Linux shows its sockets in a table of text.
func readSockets(map[localPort][]socket) error { return errors.ErrUnsupported }
