-- A role and a database each: whoever searches with Optuna cannot read MLflow's users. Passwords come from the
-- environment.
\getenv optuna_password OPTUNA_PASSWORD
\getenv mlflow_password MLFLOW_PASSWORD
CREATE ROLE optuna LOGIN PASSWORD :'optuna_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE optuna OWNER optuna;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE optuna, mlflow FROM PUBLIC;
