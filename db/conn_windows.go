package db

import "net"

// hasInput returns false: Windows has no non-blocking peek, so that the next use of a closed connection
// detects it.
func hasInput(net.Conn) bool { return false }
