-- A saved chat of database version 1, as its release wrote it.
BEGIN TRANSACTION;
CREATE TABLE messages (
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (session, number)
) STRICT;
INSERT INTO "messages" VALUES('chat_1',0,'{"id":"msg_0","role":"system","first":0,"stop":3,"begins_turn":false,"parts":[{"type":"text","text":"Be brief."}],"tool_calls":[],"tool_call_id":null,"name":null}',X'118890C5A480F1E48C8314E08894659C');
INSERT INTO "messages" VALUES('chat_1',1,'{"id":"msg_1","role":"user","first":3,"stop":6,"begins_turn":true,"parts":[{"type":"text","text":"Where is the lighthouse?"}],"tool_calls":[],"tool_call_id":null,"name":null}',X'036A3442E191C3CD7A64C5E33E100C04');
INSERT INTO "messages" VALUES('chat_1',2,'{"id":"msg_2","role":"assistant","first":6,"stop":9,"begins_turn":false,"parts":[{"type":"text","text":"On the cliff. "}],"tool_calls":[{"id":"c1","name":"find","arguments":"{\"b\":1, \"a\":2}"}],"tool_call_id":null,"name":null}',X'F8EC012B554FDD16F9D87D0B73040C7D');
INSERT INTO "messages" VALUES('chat_1',3,'{"id":"msg_3","role":"user","first":9,"stop":11,"begins_turn":true,"parts":[{"type":"text","text":"How high?"}],"tool_calls":[],"tool_call_id":null,"name":null}',X'76351C2B8DFCAB190847A730401FACA4');
INSERT INTO "messages" VALUES('chat_1',4,'{"id":"msg_4","role":"assistant","first":11,"stop":13,"begins_turn":false,"parts":[{"type":"text","text":"Thirty metres."}],"tool_calls":[],"tool_call_id":null,"name":null}',X'17987803175FDD14630A910B5D3883DF');
CREATE TABLE parts (
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (session, number)
) STRICT;
INSERT INTO "parts" VALUES('chat_1',0,X'7374617465206F662076657273696F6E2031');
CREATE TABLE sessions (
    id TEXT PRIMARY KEY NOT NULL,
    epoch INTEGER NOT NULL,
    num_messages INTEGER NOT NULL,
    num_tokens INTEGER NOT NULL,
    created_seconds REAL NOT NULL,
    updated_seconds REAL NOT NULL,
    metadata TEXT NOT NULL,
    digest BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "sessions" VALUES('chat_1',2,5,13,1.79562979114699697497e+09,1795629791.24878,'{"model": "tiny", "title": "Ärger"}',X'07C5DE88D0B67526E5B5EA43FA4BA351');
CREATE TABLE snapshots (
    session TEXT PRIMARY KEY NOT NULL,
    num_tokens INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT;
INSERT INTO "snapshots" VALUES('chat_1',13,X'D3005EDB9116F072E2F177B060A168D9');
CREATE TABLE tokens (
    session TEXT NOT NULL,
    first INTEGER NOT NULL,
    ids BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (session, first)
) STRICT;
INSERT INTO "tokens" VALUES('chat_1',0,X'6400000065000000660000006700000068000000690000006A0000006B0000006C000000',X'9A1FED169C4F9A43F1941F909A7C08D2');
INSERT INTO "tokens" VALUES('chat_1',9,X'C8000000C9000000CA000000CB000000',X'510D37328E18A800EF87C2FCDAF6A8A2');
CREATE INDEX sessions_by_age ON sessions (updated_seconds);
COMMIT;
PRAGMA application_id = 1397509197;
PRAGMA user_version = 1;
