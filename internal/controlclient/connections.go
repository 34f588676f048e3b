package controlclient

import "github.com/eclitunnel/eclitunnel/gen/types"

// Connections are the connections of players. Its methods but CloseConnections are called
// with a lock held, and must not call the Client.
type Connections interface {
	// StartConnections is called at the beginning of a channel whose panel takes reports of
	// connections: the next reports are of all that there are.
	StartConnections()
	// NextConnections returns the next report, or nil if there is nothing to report. It is
	// called at most four times a second, between a StartConnections and its
	// StopConnections.
	NextConnections() *types.ConnectionsReport
	// StopConnections is called at the end of such a channel: nothing need be kept for it.
	StopConnections()
	// CloseConnections ends the connections that the panel names. Others have ended.
	CloseConnections(ids []string)
}
