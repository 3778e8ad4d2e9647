"""The websocket sessions, the HTTP routes, authentication, the playground."""
