package handler

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/netaddr"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

var (
	errNoConnection = problem.NotFound("There is no such connection. It may have ended.")
	errNotKeptOut   = problem.NotFound("The allocation does not keep this source out.")
)

// ListConnections lists the players who are connected to allocations of devices that the caller sees.
func (a *api) ListConnections(ctx context.Context, request server.ListConnectionsRequestObject) (server.ListConnectionsResponseObject, error) {
	params := request.Params
	after, err := connectionPosition(params.After)
	if err != nil {
		return nil, err
	}
	filter := db.ConnectionFilter{
		AllocationID: params.AllocationID, OrganisationID: params.OrganisationID, DeviceID: params.DeviceID, ServerID: params.ServerID,
		Protocol: string(valueOr(params.Protocol, "")),
	}
	if params.SourceAddress != nil {
		if filter.Source, err = netaddr.ParsePrefix(*params.SourceAddress); err != nil {
			return nil, problem.Invalid(problem.Field("sourceAddress", err.Error()))
		}
	}
	wanted, page := page(params.Limit, after)
	rows, err := a.db.Connections(ctx, auth.FromContext(ctx).Scope(), filter, page)
	if err != nil {
		return nil, err
	}
	rows, link := cut(rows, wanted, "/api/tunnel/connections", connectionCursor,
		"allocationId", number(params.AllocationID), "organisationId", number(params.OrganisationID), "deviceId", idText(params.DeviceID),
		"serverId", idText(params.ServerID), "protocol", filter.Protocol, "sourceAddress", valueOr(params.SourceAddress, ""))
	connections := make([]types.Connection, 0, len(rows))
	for _, row := range rows {
		connections = append(connections, toConnection(row))
	}
	return server.ListConnections200JSONResponse{Body: connections, Headers: server.ListConnections200ResponseHeaders{Link: link}}, nil
}

// GetConnection returns one connection.
func (a *api) GetConnection(ctx context.Context, request server.GetConnectionRequestObject) (server.GetConnectionResponseObject, error) {
	serverID, number, err := parseConnectionID(request.ID)
	if err != nil {
		return nil, err
	}
	row, err := a.db.Connection(ctx, auth.FromContext(ctx).Scope(), serverID, number)
	if err != nil {
		return nil, ifNotFound(err, errNoConnection)
	}
	return server.GetConnection200JSONResponse(toConnection(row)), nil
}

// CloseConnection cuts a player off, and keeps their source out for a time.
func (a *api) CloseConnection(ctx context.Context, request server.CloseConnectionRequestObject) (server.CloseConnectionResponseObject, error) {
	serverID, number, err := parseConnectionID(request.ID)
	if err != nil {
		return nil, err
	}
	keepOut := time.Duration(valueOr(request.Params.KeepOutSeconds, 0)) * time.Second
	err = a.db.CloseConnection(ctx, auth.FromContext(ctx).Scope(), serverID, number, keepOut)
	if errors.Is(err, db.ErrTooMany) {
		return nil, problem.Conflict("The allocation already keeps out 1,000 sources, or its device 5,000. Let some of them in again.")
	}
	if err != nil {
		return nil, ifNotFound(err, errNoConnection)
	}
	return server.CloseConnection200JSONResponse(types.Success{Success: true}), nil
}

// ListKeptOut lists the sources that an allocation keeps out.
func (a *api) ListKeptOut(ctx context.Context, request server.ListKeptOutRequestObject) (server.ListKeptOutResponseObject, error) {
	rows, err := a.db.KeptOut(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, ifNotFound(err, errNoAllocation)
	}
	kept := make(server.ListKeptOut200JSONResponse, 0, len(rows))
	for _, row := range rows {
		kept = append(kept, types.KeptOut{Source: row.Source, Until: row.Until.UTC(), CreatedAt: row.CreatedAt.UTC()})
	}
	return kept, nil
}

// ReadmitSource lets a source in again that an allocation keeps out.
func (a *api) ReadmitSource(ctx context.Context, request server.ReadmitSourceRequestObject) (server.ReadmitSourceResponseObject, error) {
	source, err := netaddr.ParsePrefix(request.Params.Source)
	if err != nil {
		return nil, problem.Invalid(problem.Field("source", err.Error()))
	}
	scope := auth.FromContext(ctx).Scope()
	if _, err := a.db.Allocation(ctx, scope, request.ID); err != nil {
		return nil, ifNotFound(err, errNoAllocation)
	}
	if err := a.db.Readmit(ctx, scope, request.ID, source); err != nil {
		return nil, ifNotFound(err, errNotKeptOut)
	}
	return server.ReadmitSource200JSONResponse(types.Success{Success: true}), nil
}

func toConnection(row db.Connection) types.Connection {
	return types.Connection{
		ID: connectionID(row.ServerID, row.Number), AllocationID: row.AllocationID, DeviceID: row.DeviceID, ServerID: row.ServerID,
		Protocol: types.Protocol(row.Protocol), SourceAddress: netip.MustParseAddr(row.Source).Unmap().String(), SourcePort: row.SourcePort,
		Since: row.Since.UTC(), DownloadBytes: row.DownloadBytes, UploadBytes: row.UploadBytes,
		PlayerRoundTripMs: nullableOf(row.PlayerRoundTrip), TunnelRoundTripMs: nullableOf(row.TunnelRoundTrip), AsOf: row.UpdatedAt.UTC(),
	}
}

func nullableOf[T any](value *T) nullable.Nullable[T] {
	if value == nil {
		return nullable.NewNullNullable[T]()
	}
	return nullable.NewNullableWithValue(*value)
}

// connectionID returns the id of a connection: that of its tunnel server, and its number there.
func connectionID(serverID uuid.UUID, number int64) string {
	return fmt.Sprintf("%x-%016x", serverID[:], uint64(number))
}

// parseConnectionID parses an id that the contract's pattern has let through.
func parseConnectionID(id string) (serverID uuid.UUID, number int64, err error) {
	first, last, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(last, 16, 64)
	if err != nil {
		return uuid.Nil, 0, errNoConnection
	}
	if _, err := hex.Decode(serverID[:], []byte(first)); err != nil {
		return uuid.Nil, 0, errNoConnection
	}
	return serverID, int64(n), nil
}

// connectionCursorBytes is the length of a decoded cursor of the list of connections: microseconds since 1970 as 8 bytes
// in big-endian order, the 16 bytes of the tunnel server's UUID, and the number in 8 bytes.
const connectionCursorBytes = 8 + 16 + 8

// connectionCursor encodes the position of a connection. It has the sort key, so that it stays valid when the
// connection ends.
func connectionCursor(row db.Connection) string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(row.Since.UnixMicro()))
	raw = append(raw, row.ServerID[:]...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(raw, uint64(row.Number)))
}

// connectionPosition decodes the parameter `after`; it returns nil without one.
func connectionPosition(after *string) (*db.ConnectionPosition, error) {
	if after == nil {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(*after)
	if err != nil || len(raw) != connectionCursorBytes || binary.BigEndian.Uint64(raw) > uint64(lastMicrosecond) {
		return nil, errNoPosition
	}
	return &db.ConnectionPosition{
		Since: time.UnixMicro(int64(binary.BigEndian.Uint64(raw))).UTC(), ServerID: uuid.UUID(raw[8:24]),
		Number: int64(binary.BigEndian.Uint64(raw[24:])),
	}, nil
}

func idText(id *uuid.UUID) string {
	if id == nil {
		return ""
	}
	return id.String()
}
