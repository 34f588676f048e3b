// Package link keeps a tunnel client's links to tunnel servers, and the data
// connections that these ask for.
//
// The panel's desired state goes in ([Manager.Apply]); what is true of each
// allocation comes out ([Manager.Reports]). In between, a link is a WebSocket on
// which a tunnel server asks for data connections: those for TCP carry one player at
// a time to a local target, those for UDP belong to a session that outlives its link.
// [Manager.Run] owns every goroutine of the package and waits for all of them.
package link
